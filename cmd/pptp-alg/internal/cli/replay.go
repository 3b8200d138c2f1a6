package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"

	"pptp-alg/cmd/pptp-alg/internal/config"
	"pptp-alg/cmd/pptp-alg/internal/pcap"
	"pptp-alg/cmd/pptp-alg/internal/replay"
	"pptp-alg/nat"
)

var replayCommand = command{
	name:    "replay",
	summary: "run the translation over a capture, without a kernel",
	usage:   "FILE [FLAGS]",
	args:    1,
	help: `Reads a capture (pcap or pcapng; "-" is standard input), runs the translation over
it as the daemon would, and prints what happened: control connections, messages and
which Call ID becomes which, calls, the GRE that was seen of each, and what is wrong.
It needs neither root nor a kernel. Capture with

  tcpdump -i any -s 0 -w FILE 'tcp port 1723 or ip proto 47 or icmp'

With --public the clients of the capture are masqueraded behind that address, so
that equal Call IDs get in each other's way as they would on a NAT router. Without it
there is no NAT, and a Call ID changes only where it has to.

--write writes the control connections and the GRE of the capture as they would be on
the server's side of the router: addresses and Call IDs translated, everything else
left out.

Examples:
  pptp-alg replay vpn.pcap
  pptp-alg replay vpn.pcapng --public 203.0.113.1 --write outside.pcap
  pptp-alg replay vpn.pcap --json | jq 'select(.kind == "summary") | .calls'`,
	flags: func(fs *flag.FlagSet) func(context.Context, Program) error {
		var o replayOptions
		o.settings.configFlag(fs)
		o.settings.portFlag(fs)
		fs.Func("public", "masquerade clients behind `ADDRESS`", func(v string) (err error) {
			if o.public, err = netip.ParseAddr(v); err != nil || !o.public.Is4() {
				return fmt.Errorf("must be an IPv4 address such as 203.0.113.1, not %q", v)
			}
			return nil
		})
		fs.StringVar(&o.write, "write", "", "write the translated capture to `OUT`, a pcap of raw IP")
		fs.BoolVar(&o.json, "json", false, "print each event as a line of JSON, and a summary as the last")
		fs.Func("seed", "choose Call IDs by the seed `N` (default 1); equal seeds choose equal ones", func(v string) (err error) {
			n, err := strconv.ParseUint(v, 10, 64)
			if err != nil {
				return fmt.Errorf("must be a whole number, not %q", v)
			}
			o.seed = &n
			return nil
		})
		return o.run
	},
}

type replayOptions struct {
	settings settings
	public   netip.Addr
	write    string
	json     bool
	seed     *uint64
}

func (o *replayOptions) run(ctx context.Context, p Program) error {
	if len(p.Args) == 0 {
		return errUsage{errors.New("replay: name a capture; see `pptp-alg replay --help`")}
	}
	c, err := o.settings.load()
	if err != nil {
		return err
	}
	in, size, err := openCapture(p.Args[0])
	if err != nil {
		return err
	}
	defer in.Close()
	reader, err := pcap.NewReader(in)
	if err != nil {
		return fmt.Errorf("%s: %w", p.Args[0], err)
	}
	opts := replay.Options{Ports: c.Ports, Public: o.public, Table: replayTable(c), Seed: 1}
	if o.seed != nil {
		opts.Seed = *o.seed
	}
	var out *output
	if o.write != "" {
		if out, err = createOutput(o.write, in); err != nil {
			return err
		}
		defer out.file.Close()
		opts.Out = out.writer
	}
	err = o.replay(ctx, p, reader, opts, newProgress(p.Stderr, size))
	if out != nil {
		err = errors.Join(err, out.finish())
	}
	return err
}

// replay reads the whole capture.
func (o *replayOptions) replay(ctx context.Context, p Program, reader *pcap.Reader, opts replay.Options, bar *progress) error {
	defer bar.clear()
	screen := bar.before(p.Stdout)
	text := replay.NewText(screen)
	lines := bufio.NewWriter(screen)
	encoder := json.NewEncoder(lines)
	opts.Report = text.Event
	if o.json {
		opts.Report = func(e *replay.Event) { _ = encoder.Encode(e) } // its error is Flush's
	}
	r := replay.New(opts)
	var incomplete error
	for ctx.Err() == nil {
		packet, err := reader.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				incomplete = err
			}
			break
		}
		if err := r.Packet(packet); err != nil {
			break // Finish says it
		}
		bar.at(reader.Offset())
	}
	summary, err := r.Finish()
	if incomplete != nil {
		summary.Incomplete = incomplete.Error()
	}
	bar.clear()
	if o.json {
		_ = encoder.Encode(summary)
		err = errors.Join(err, lines.Flush())
	} else {
		err = errors.Join(err, text.Summary(summary))
	}
	if errors.Is(incomplete, pcap.ErrDamaged) || errors.Is(incomplete, pcap.ErrFormat) {
		err = errors.Join(err, fmt.Errorf("%s: %w", p.Args[0], incomplete))
	}
	return errors.Join(err, ctx.Err())
}

// replayTable is the part of the configuration that a replay has. Nothing is
// renewed: there is no kernel.
func replayTable(c config.Config) nat.Config {
	return nat.Config{
		First: c.CallIDs.First, Last: c.CallIDs.Last,
		Limits: nat.Limits(c.Limits),
		Timeouts: nat.Timeouts{
			HalfOpen: c.Timeouts.HalfOpen, Clearing: c.Timeouts.Clearing, Grace: c.Timeouts.Grace, Rest: c.Timeouts.Rest,
		},
		Remember: c.Remember,
	}
}

// openCapture opens a file, of which the size is 0 where it is not known.
func openCapture(path string) (f *os.File, size int64, err error) {
	if path == "-" {
		return os.Stdin, 0, nil
	}
	if f, err = os.Open(path); err != nil {
		return nil, 0, fmt.Errorf("read the capture: %w", err)
	}
	st, err := f.Stat()
	switch {
	case err != nil:
	case st.IsDir():
		err = fmt.Errorf("read the capture: %s is a directory", path)
	case st.Mode().IsRegular():
		size = st.Size()
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, size, nil
}

// output is the capture that is written.
type output struct {
	file   *os.File
	buffer *bufio.Writer
	writer *pcap.Writer
}

func createOutput(path string, in *os.File) (*output, error) {
	a, err := in.Stat()
	if b, e := os.Stat(path); err == nil && e == nil && os.SameFile(a, b) {
		return nil, fmt.Errorf("write the translated capture: %s is the capture that is read", path)
	}
	// What is in a capture is not for everybody.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write the translated capture: %w", err)
	}
	o := &output{file: f, buffer: bufio.NewWriterSize(f, 64<<10)}
	if o.writer, err = pcap.NewWriter(o.buffer); err != nil {
		f.Close()
		return nil, fmt.Errorf("write the translated capture: %w", err)
	}
	return o, nil
}

func (o *output) finish() error {
	if err := errors.Join(o.buffer.Flush(), o.file.Close()); err != nil {
		return fmt.Errorf("write the translated capture: %w", err)
	}
	return nil
}
