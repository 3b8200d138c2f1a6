// Command driver is a PPTP client over the kernel's own PPTP driver (pptp.ko,
// sockets of family AF_PPPOX): the kernel makes and reads the call's GRE. Like
// pptp-linux it goes between pppd and the network:
//
//	pppd pty "driver 203.0.113.2" ...
//
// It does what pppd's plugin pptp.so does on other systems: Debian's ppp has
// none.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"pptp-alg/e2e/wire"
)

// leaving bounds how long the end of a call may take.
const leaving = 10 * time.Second

func main() {
	callID := flag.Uint("call-id", 0, "our `NUMBER` (0: the kernel's choice)")
	flag.Parse()
	server, err := netip.ParseAddr(flag.Arg(0))
	if err != nil || flag.NArg() != 1 || *callID > 65535 {
		fmt.Fprintln(os.Stderr, "usage: driver [-call-id NUMBER] SERVER")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, server, uint16(*callID)); err != nil {
		fmt.Fprintf(os.Stderr, "driver: %v\n", err)
		os.Exit(1)
	}
}

// run places a call and carries its frames until one of the ends hangs up.
func run(ctx context.Context, server netip.Addr, callID uint16) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp4", netip.AddrPortFrom(server, 1723).String())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	socket, err := bind(conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr(), callID)
	if err != nil {
		return err
	}
	c := &control{conn: conn, r: wire.NewReader(conn)}
	peerID, err := c.call(socket.callID)
	if err != nil {
		return err
	}
	if err := socket.connect(server, peerID); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "driver: the call is up, Call IDs %d and %d\n", socket.callID, peerID)
	ended := make(chan error, 3)
	go func() { ended <- c.listen() }()
	go func() { ended <- toNetwork(os.Stdin, socket) }()
	go func() { ended <- toPPP(socket, os.Stdout) }()
	select {
	case <-ctx.Done():
	case err = <-ended:
	}
	if err == errCleared {
		return nil
	}
	c.clear(socket.callID)
	if err == io.EOF || ctx.Err() != nil { // pppd has gone
		return nil
	}
	return err
}

// toNetwork takes pppd's frames.
func toNetwork(from io.Reader, to io.Writer) error {
	r := newFrames(from)
	for {
		frame, err := r.next()
		if err != nil {
			return err
		}
		if _, err := to.Write(frame); err != nil {
			return fmt.Errorf("hand a frame to the driver: %w", err)
		}
	}
}

// toPPP gives pppd what comes.
func toPPP(from io.Reader, to io.Writer) error {
	b := make([]byte, 1<<16)
	for {
		n, err := from.Read(b)
		if err != nil {
			return fmt.Errorf("take a frame from the driver: %w", err)
		}
		if _, err := to.Write(encode(b[:n])); err != nil {
			return io.EOF
		}
	}
}
