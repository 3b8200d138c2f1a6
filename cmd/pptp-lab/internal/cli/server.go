package cli

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"pptp-alg/e2e/inet"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/ppp"
	"pptp-alg/e2e/tunnel"
)

func runServer(ctx context.Context, e environment, args []string) (int, error) {
	f := e.flags("server", "", "Is a PPTP server until it is interrupted. Pings of its inside address are\nanswered, by the kernel with --tun.")
	address, port := netip.IPv4Unspecified(), uint(peer.Port)
	f.Func("listen", "the `ADDRESS` to listen at (default: all)", func(s string) (err error) {
		address, err = netip.ParseAddr(s)
		return err
	})
	f.UintVar(&port, "port", port, "the TCP `PORT`")
	inside := netip.MustParsePrefix("172.20.0.1/16")
	f.Func("inside", "own address inside the tunnels and the `PREFIX` that clients get theirs from (default 172.20.0.1/16)", func(s string) (err error) {
		inside, err = netip.ParsePrefix(s)
		return err
	})
	clients := f.Int("clients", 1000, "`NUMBER` of clients at once")
	user := f.String("user", "", "the `NAME` that clients log in with; without one nobody has to")
	password := f.String("password", "", "and their `PASSWORD`")
	device := f.Bool("tun", false, "hand datagrams to a TUN device")
	verbose := f.Bool("verbose", false, "log control messages to standard error")
	end := ppp.Config{Magic: true, PFC: true, ACFC: true, Name: "pptp-lab", Echo: 30 * time.Second,
		Demand: []ppp.Method{ppp.MSCHAPv2, ppp.CHAPMD5, ppp.PAP}, Encryption: ppp.AnyEncryption()}
	encryptionFlag(f, &end.Encryption)
	methodsFlag(f, &end.Demand)
	if _, err := e.parse(f, args, 0); err != nil {
		return ExitUsage, err
	}
	if port > 65535 || !inside.Addr().Is4() || !address.Is4() || *clients < 1 {
		f.Usage()
		return ExitUsage, errUsage
	}
	if *user == "" {
		end.Demand = nil
	}
	end.Secret = func(name string) (string, bool) { return *password, name == *user }
	end.Address = inside.Addr()
	node := peer.Config{Address: address, Name: "server", Log: func(string, ...any) {}}
	if *verbose {
		node.Log = logTo(e.stderr)
	}
	if err := serve(ctx, e, node, tunnel.Config{PPP: end}, inside, *clients, uint16(port), *device); err != nil {
		return ExitFailure, err
	}
	return ExitOK, nil
}

// deviceMTU leaves room for IP, GRE, PPP and MPPE in 1500 octets.
const deviceMTU = 1400

func serve(ctx context.Context, e environment, node peer.Config, cfg tunnel.Config, inside netip.Prefix, clients int, port uint16, device bool) error {
	if device {
		d, err := inet.OpenTUN("", inside.Addr(), inside.Masked(), deviceMTU)
		if err != nil {
			return err
		}
		defer func() { _ = d.Close() }()
		cfg.Datagram = func(_ *tunnel.Tunnel, b []byte) []byte {
			_, _ = d.Write(b) // as good as lost
			return nil
		}
		s, err := tunnel.StartServer(node, cfg, clients)
		if err != nil {
			return err
		}
		fmt.Fprintf(e.stdout, "%s: %v\n", d.Name(), inside)
		go pump(d, func(b []byte) *tunnel.Tunnel { return s.To(inet.Destination(b)) })
		return listen(ctx, e, s, port)
	}
	s, err := tunnel.StartServer(node, cfg, clients)
	if err != nil {
		return err
	}
	return listen(ctx, e, s, port)
}

// listen serves until the context ends.
func listen(ctx context.Context, e environment, s *tunnel.Server, port uint16) error {
	defer func() { _ = s.Close() }()
	if err := s.Listen(port); err != nil {
		return err
	}
	fmt.Fprintf(e.stdout, "Listening at %v, port %d.\n", s.Address(), port)
	<-ctx.Done()
	fmt.Fprintf(e.stdout, "Ended with %d tunnels up.\n", len(s.Tunnels()))
	for _, f := range s.Faults() {
		fmt.Fprintf(e.stdout, "Strange: %s\n", f)
	}
	return nil
}
