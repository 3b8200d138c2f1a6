// Package evidence keeps the last control packets of each connection in memory,
// and writes those of a connection that failed to a file, as a pcap that
// `pptp-alg replay` and Wireshark read.
//
// It is off unless somebody asks for it. What it keeps is bounded: by connection,
// in memory, in files a minute, and on the disk, where the oldest files go. It
// writes from a goroutine of its own; whoever hands it packets never waits.
package evidence

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"pptp-alg/cmd/pptp-alg/internal/pcap"
)

// Bounds that nobody has to set.
const (
	memory  = 8 << 20 // bytes that all connections together may keep, about
	least   = 2 << 10 // but this each
	perTime = 10      // so many files
	period  = time.Minute
	waiting = 8 // files that wait to be written
)

// Config of a Keeper.
type Config struct {
	Directory  string
	Total      int64 // bytes of all files
	Connection int   // bytes kept of a connection
	// Say is told of a directory that can't be written to, once, until it can.
	// It is called by another goroutine.
	Say func(error)
}

// Keeper keeps packets by connection. Its methods are for one goroutine.
type Keeper struct {
	cfg   Config
	rings map[any]*ring
	due   []due
	since time.Time // of the current period
	files int       // in it

	jobs chan job
	done sync.WaitGroup
}

// ring is what is kept of a connection, the oldest first.
type ring struct {
	client  netip.AddrPort
	server  netip.AddrPort
	packets []packet
	bytes   int
	closed  bool
}

type packet struct {
	t  time.Time
	ip []byte
}

// due is a connection that failed, or that was closed.
type due struct {
	key  any
	t    time.Time
	what string // how it failed; empty: it did not
}

type job struct {
	name    string
	packets []packet
}

// New makes the directory, if need be, and returns a Keeper that writes to it.
func New(cfg Config) (*Keeper, error) {
	if err := os.MkdirAll(cfg.Directory, 0o700); err != nil {
		return nil, fmt.Errorf("keep the packets of connections that fail: %w", err)
	}
	probe, err := os.CreateTemp(cfg.Directory, ".probe-")
	if err != nil {
		return nil, fmt.Errorf("keep the packets of connections that fail: %w", err)
	}
	probe.Close()
	os.Remove(probe.Name())
	k := &Keeper{cfg: cfg, rings: map[any]*ring{}, jobs: make(chan job, waiting)}
	k.done.Go(k.write)
	return k, nil
}

// Add keeps a copy of a packet of the connection between two ends. A nil Keeper
// keeps nothing.
func (k *Keeper) Add(key any, client, server netip.AddrPort, t time.Time, ip []byte) {
	if k == nil {
		return
	}
	r := k.rings[key]
	if r == nil {
		r = &ring{client: client, server: server}
		k.rings[key] = r
	}
	r.packets = append(r.packets, packet{t, bytes.Clone(ip)})
	r.bytes += len(ip) + pcap.RecordSize
	limit := max(min(k.cfg.Connection, memory/len(k.rings)), least)
	drop := 0
	for r.bytes > limit && drop < len(r.packets)-1 {
		r.bytes -= len(r.packets[drop].ip) + pcap.RecordSize
		drop++
	}
	r.packets = slices.Delete(r.packets, 0, drop)
}

// Failed says that a connection failed, and in a word how, for the file's name.
// Flush writes it: the packet that made it fail may still be to come.
func (k *Keeper) Failed(key any, t time.Time, what string) {
	if k != nil && k.rings[key] != nil && len(k.due) < waiting {
		k.due = append(k.due, due{key, t, what})
	}
}

// Closed says that nothing more of a connection is worth keeping.
func (k *Keeper) Closed(key any) {
	if k == nil || k.rings[key] == nil {
		return
	}
	k.rings[key].closed = true
	k.due = append(k.due, due{key: key})
}

// Flush hands over what is due. It is to be called whenever a packet, or whatever
// else may make a connection fail, has been dealt with.
func (k *Keeper) Flush() {
	if k == nil || len(k.due) == 0 {
		return
	}
	for _, d := range k.due {
		if r := k.rings[d.key]; r != nil && d.what != "" {
			k.save(r, d)
		}
	}
	for _, d := range k.due {
		if r := k.rings[d.key]; r != nil && r.closed {
			delete(k.rings, d.key)
		}
	}
	k.due = k.due[:0]
}

// save gives a copy to the writer, unless there were many of late.
func (k *Keeper) save(r *ring, f due) {
	if f.t.Sub(k.since) >= period || f.t.Before(k.since) {
		k.since, k.files = f.t, 0
	}
	if k.files == perTime {
		return
	}
	end := func(a netip.AddrPort) string { return fmt.Sprintf("%v_%d", a.Addr(), a.Port()) }
	name := fmt.Sprintf("%s-%s-%s-%s.pcap", f.t.UTC().Format("20060102T150405.000Z"), end(r.client), end(r.server), f.what)
	select {
	case k.jobs <- job{name, slices.Clone(r.packets)}: // the packets themselves never change
		k.files++
	default:
	}
}

// Close writes what waits.
func (k *Keeper) Close() {
	if k != nil {
		close(k.jobs)
		k.done.Wait()
	}
}

// write is the writer.
func (k *Keeper) write() {
	broken := false
	for j := range k.jobs {
		err := k.file(j)
		if err != nil && !broken && k.cfg.Say != nil {
			k.cfg.Say(fmt.Errorf("keep the packets of a connection that failed: %w", err))
		}
		broken = err != nil
	}
}

// file writes a file under another name first: what has its name is whole.
func (k *Keeper) file(j job) error {
	var b bytes.Buffer
	w, err := pcap.NewWriter(&b)
	if err != nil {
		return err
	}
	for _, p := range j.packets {
		if err := w.Write(p.t, p.ip, len(p.ip)); err != nil {
			return err
		}
	}
	if err := k.prune(k.cfg.Total - int64(b.Len())); err != nil {
		return err
	}
	path := filepath.Join(k.cfg.Directory, j.name)
	partial := filepath.Join(k.cfg.Directory, "."+j.name+".partial")
	err = os.WriteFile(partial, b.Bytes(), 0o600)
	if err == nil {
		err = os.Rename(partial, path)
	}
	if err != nil {
		os.Remove(partial)
	}
	return err
}

// ours is what the files of this package are called: nothing else is deleted.
var ours = regexp.MustCompile(`^\d{8}T\d{6}\.\d{3}Z-[0-9.]+_\d+-[0-9.]+_\d+-[a-z]+\.pcap$`)

// prune deletes the oldest files until all have at most so many bytes.
func (k *Keeper) prune(most int64) error {
	entries, err := os.ReadDir(k.cfg.Directory)
	if err != nil {
		return err
	}
	var names []string
	sizes := map[string]int64{}
	total := int64(0)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !ours.MatchString(e.Name()) || !info.Mode().IsRegular() {
			continue
		}
		names = append(names, e.Name())
		sizes[e.Name()] = info.Size()
		total += info.Size()
	}
	slices.SortFunc(names, strings.Compare) // by time
	for _, name := range names {
		if total <= most {
			break
		}
		if err := os.Remove(filepath.Join(k.cfg.Directory, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		total -= sizes[name]
	}
	return nil
}
