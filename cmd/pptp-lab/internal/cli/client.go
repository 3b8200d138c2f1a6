package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"pptp-alg/e2e/inet"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/ppp"
	"pptp-alg/e2e/tunnel"
)

// clients is one run of the client command.
type clients struct {
	environment
	*dialing
	ppp      ppp.Config
	tunnels  int
	together bool
	pings    int
	size     int
	hold     time.Duration
	device   bool

	client *tunnel.Client
	mu     sync.Mutex
	up     []*tunnel.Tunnel
}

func runClient(ctx context.Context, e environment, args []string) (int, error) {
	f := e.flags("client", "HOST[:PORT]", "Connects to a server, as often as told, and sends pings through every tunnel.\nThe exit code is 0 if all came up and all pings were answered.")
	c := &clients{environment: e, dialing: dialFlags(f)}
	c.ppp = ppp.Config{Magic: true, MRU: 1400, PFC: true, ACFC: true, Echo: 20 * time.Second,
		Offer: []ppp.Method{ppp.MSCHAPv2, ppp.CHAPMD5, ppp.PAP}, Encryption: ppp.AnyEncryption()}
	encryptionFlag(f, &c.ppp.Encryption)
	methodsFlag(f, &c.ppp.Offer)
	f.IntVar(&c.tunnels, "tunnels", 1, "`NUMBER` of tunnels at once")
	f.BoolVar(&c.together, "one-connection", false, "place all calls on one control connection")
	f.IntVar(&c.pings, "pings", 3, "`NUMBER` of pings through each tunnel")
	f.IntVar(&c.size, "size", 56, "`OCTETS` of data in a ping")
	f.DurationVar(&c.hold, "hold", 0, "stay connected for so long (until interrupted, with --tun)")
	f.BoolVar(&c.device, "tun", false, "make a TUN device of the (single) tunnel")
	rest, err := e.parse(f, args, 1)
	if err != nil {
		return ExitUsage, err
	}
	if c.device && c.tunnels != 1 || c.tunnels < 1 {
		f.Usage()
		return ExitUsage, errUsage
	}
	c.ppp.User, c.ppp.Password = c.user, c.password
	if err := c.resolve(ctx, rest[0]); err != nil {
		return ExitFailure, err
	}
	if err := c.run(ctx); err != nil {
		return ExitFailure, err
	}
	return ExitOK, nil
}

func (c *clients) run(ctx context.Context) error {
	if !c.source.IsValid() {
		conn, err := net.Dial("udp4", c.server.String()) // sends nothing
		if err != nil {
			return fmt.Errorf("find a route: %w", err)
		}
		c.source = conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
		_ = conn.Close()
	}
	ids := peer.Counting(1)
	if c.callID >= 0 {
		ids = peer.Counting(uint16(c.callID))
	}
	cfg := tunnel.Config{PPP: c.ppp}
	var device *inet.TUN
	if c.device {
		cfg.Datagram = func(_ *tunnel.Tunnel, b []byte) []byte {
			if device != nil {
				_, _ = device.Write(b) // as good as lost
			}
			return nil
		}
	}
	var err error
	c.client, err = tunnel.StartClient(peer.Config{Address: c.source, Name: "client", Timeout: c.timeout, Keepalive: time.Minute,
		CallID: ids, Log: c.log(c.stderr)}, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = c.client.Close() }()
	began := time.Now()
	if err := c.dialAll(ctx); err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%d of %d tunnels are up after %v.\n", len(c.up), c.tunnels, time.Since(began).Round(time.Millisecond))
	if c.pings > 0 {
		if err := c.firstPings(ctx, began); err != nil {
			return err
		}
		if err := c.pingAll(ctx); err != nil {
			return err
		}
	}
	if c.device {
		st := c.up[0].State()
		d, err := inet.OpenTUN("", st.Local, netip.PrefixFrom(st.Remote, 32), st.MTU)
		if err != nil {
			return err
		}
		if err := c.up[0].Do(func() { device = d }); err != nil {
			return err
		}
		defer func() { _ = d.Close() }()
		fmt.Fprintf(c.stdout, "%s: %v, the other end is %v.\n", d.Name(), st.Local, st.Remote)
		go pump(d, func([]byte) *tunnel.Tunnel { return c.up[0] })
	}
	c.stay(ctx)
	leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, t := range c.up {
		wg.Go(func() { _ = t.Close(leave) })
	}
	wg.Wait()
	return nil
}

// stay waits as long as told, or until the tunnels are gone.
func (c *clients) stay(ctx context.Context) {
	var end <-chan time.Time
	if c.hold > 0 {
		end = time.After(c.hold)
	} else if !c.device {
		return
	}
	gone := make(chan struct{})
	go func() {
		for _, t := range c.up {
			<-t.Done()
		}
		close(gone)
	}()
	select {
	case <-ctx.Done():
	case <-end:
	case <-gone:
		fmt.Fprintln(c.stdout, "The server has ended the last tunnel.")
	}
}

// atOnce bounds how many tunnels are being dialed at a time.
const atOnce = 64

func (c *clients) dialAll(ctx context.Context) error {
	var session *peer.Session
	if c.together {
		var err error
		if session, err = c.client.Dial(ctx, c.server); err != nil {
			return err
		}
	}
	var wg sync.WaitGroup
	var errs []error
	slots := make(chan struct{}, atOnce)
	for range c.tunnels {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			t, err := c.dialOne(ctx, session)
			c.mu.Lock()
			defer c.mu.Unlock()
			if err != nil {
				errs = append(errs, err)
				return
			}
			c.up = append(c.up, t)
		})
	}
	wg.Wait()
	if len(errs) > 0 {
		return fmt.Errorf("%d of %d tunnels failed; the first: %w", len(errs), c.tunnels, errs[0])
	}
	return nil
}

func (c *clients) dialOne(ctx context.Context, s *peer.Session) (t *tunnel.Tunnel, err error) {
	if s == nil {
		t, err = c.client.Open(ctx, c.server)
	} else {
		t, err = c.client.Call(ctx, s)
	}
	if err != nil {
		return nil, err
	}
	limit, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if err := t.Reach(limit, ppp.Up); err != nil {
		return nil, err
	}
	if c.tunnels == 1 {
		st := t.State()
		fmt.Fprintf(c.stdout, "Up: our address is %v, the server's %v; encryption: %s.\n", st.Local, st.Remote, st.Encryption)
	}
	return t, nil
}

// firstPings waits until every tunnel carries IP.
func (c *clients) firstPings(ctx context.Context, began time.Time) error {
	limit, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var wg sync.WaitGroup
	var errs []error
	for _, t := range c.up {
		wg.Go(func() {
			if err := c.client.FirstPing(limit, t); err != nil {
				c.mu.Lock()
				defer c.mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	if len(errs) > 0 {
		return fmt.Errorf("no first answer through %d of %d tunnels: %w", len(errs), len(c.up), errs[0])
	}
	fmt.Fprintf(c.stdout, "%v to the first ping through every tunnel.\n", time.Since(began).Round(time.Millisecond))
	return nil
}

func (c *clients) pingAll(ctx context.Context) error {
	var wg sync.WaitGroup
	answered := 0
	for _, t := range c.up {
		wg.Go(func() {
			n, _ := c.client.Ping(ctx, t, c.pings, c.size, c.timeout)
			c.mu.Lock()
			defer c.mu.Unlock()
			answered += n
		})
	}
	wg.Wait()
	fmt.Fprintf(c.stdout, "%d of %d pings were answered.\n", answered, c.pings*len(c.up))
	if answered < c.pings*len(c.up) {
		return errors.New("some pings were not answered")
	}
	return nil
}

// pump sends what the kernel puts into a device through the tunnel that route
// chooses, until the device is closed.
func pump(d *inet.TUN, route func(datagram []byte) *tunnel.Tunnel) {
	b := make([]byte, 1<<16)
	for {
		n, err := d.Read(b)
		if err != nil {
			return
		}
		if t := route(b[:n]); t != nil {
			_ = t.Send(b[:n]) // as good as lost
		}
	}
}
