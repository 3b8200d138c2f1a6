package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/wire"
)

// callID is what both clients call themselves.
const callID = 7

// packets is how many GRE packets each side of each call sends.
const packets = 5

// limit ends a demonstration that got stuck.
const limit = time.Minute

// scene is the lab and who is in it.
type scene struct {
	out     io.Writer
	site    *lab.Site
	daemon  *lab.Daemon
	capture *lab.Capture
	server  *peer.Node
	clients []*peer.Node
	calls   []*peer.Call
}

// Run plays the scene and prints what there is to see. program is the path of
// pptp-alg.
func Run(ctx context.Context, out io.Writer, program string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	site, err := lab.NewSite(ctx, lab.Plan{Clients: 2, Servers: 1,
		Firewall: []lab.Piece{lab.Masquerade("wan"), lab.StrictForward("lan", peer.Port)}})
	if err != nil {
		return fmt.Errorf("make a lab of network namespaces (are you root?): %w", err)
	}
	s := &scene{out: out, site: site}
	defer func() {
		if err != nil {
			site.Describe(out)
		}
		for _, n := range append(s.clients, s.server) {
			if n != nil {
				_ = n.Close()
			}
		}
		err = errors.Join(err, site.Close())
	}()
	s.draw()
	for _, act := range []func(context.Context) error{
		func(ctx context.Context) error { return s.start(ctx, program) },
		s.callAndTalk, s.showStatus, s.showTraffic, s.hangUpOne, s.leave,
	} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *scene) say(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

func (s *scene) draw() {
	s.say(`
  client1 %-10v ──┐
                       ├── %v  router  %v ──── server1 %v
  client2 %-10v ──┘

The router masquerades, and its firewall drops what is neither established nor
a new connection to TCP port %d from the inside. Both clients use Call ID %d.`,
		s.site.Clients[0].Address, lab.LANRouter, lab.WANRouter, s.site.Servers[0].Address, s.site.Clients[1].Address, peer.Port, callID)
}

// start starts the daemon and the peers.
func (s *scene) start(ctx context.Context, program string) (err error) {
	if s.daemon, err = s.site.Router.StartDaemon(lab.DaemonOptions{Program: program}); err != nil {
		return err
	}
	if err := s.daemon.Ready(ctx); err != nil {
		return err
	}
	if s.capture, err = s.site.Router.Capture("lan", "wan"); err != nil {
		return err
	}
	at := s.site.Servers[0]
	if s.server, err = peer.Start(peer.Config{Network: at, Address: at.Address, CallID: peer.Counting(1000)}); err != nil {
		return err
	}
	for _, at := range s.site.Clients {
		n, err := peer.Start(peer.Config{Network: at, Address: at.Address, CallID: peer.Fixed(callID)})
		if err != nil {
			return err
		}
		s.clients = append(s.clients, n)
	}
	return s.server.Listen(peer.Port)
}

// callAndTalk places both calls and sends GRE both ways.
func (s *scene) callAndTalk(ctx context.Context) error {
	began := make([]time.Time, len(s.clients))
	for i, n := range s.clients {
		began[i] = time.Now()
		session, err := n.Dial(ctx, netip.AddrPortFrom(s.server.Address(), peer.Port))
		if err != nil {
			return err
		}
		call, err := session.OutgoingCall(ctx)
		if err != nil {
			return err
		}
		s.calls = append(s.calls, call)
	}
	s.say("\nBoth calls are up. Each side of each sends %d GRE packets, and every byte of the answers is checked:", packets)
	for i, call := range s.calls {
		far, err := s.server.FindCall(ctx, call.Token())
		if err != nil {
			return err
		}
		err = call.Echo(ctx, 1, 200)
		first := time.Since(began[i])
		if err := errors.Join(err, call.Echo(ctx, packets-1, 200), far.Echo(ctx, packets, 200)); err != nil {
			return err
		}
		s.say("  client%d: %d of %d answered, the server: %d of %d answered; the first %v after dialing",
			i+1, call.Stats().Answers, packets, far.Stats().Answers, packets, first.Round(time.Millisecond))
	}
	return s.faults()
}

func (s *scene) showStatus(ctx context.Context) error {
	text, err := s.daemon.StatusText(ctx)
	s.say("\n$ pptp-alg status\n%s", text)
	return err
}

// showTraffic prints, of what the router saw, the messages with Call IDs and
// the first GRE packet of every kind.
func (s *scene) showTraffic(context.Context) error {
	s.say("The traffic as the router saw it, inside (lan) and outside (wan):")
	seen := map[string]bool{}
	for _, p := range s.capture.Packets() {
		switch {
		case p.GRE != nil:
			kind := fmt.Sprint(p.Device, p.Out, p.Src, p.Dst, p.GRE.CallID)
			if seen[kind] {
				continue
			}
			seen[kind] = true
		case len(p.Control) == 0 || !hasCallID(p.Control):
			continue
		}
		s.say("  %v", p)
	}
	return nil
}

func hasCallID(messages []wire.Message) bool {
	for _, m := range messages {
		if own, peer := wire.CallIDs(m); own != nil || peer != nil {
			return true
		}
	}
	return false
}

// hangUpOne clears the first call and shows that the second goes on.
func (s *scene) hangUpOne(ctx context.Context) error {
	if err := s.calls[0].HangUp(ctx); err != nil {
		return err
	}
	if err := s.calls[1].Echo(ctx, packets, 200); err != nil {
		return err
	}
	s.say("\nclient1 has hung up; client2 goes on: %d more of %d answered.", packets, packets)
	return s.showStatus(ctx)
}

// leave stops the daemon and looks at what is left.
func (s *scene) leave(ctx context.Context) error {
	if err := s.faults(); err != nil {
		return err
	}
	if err := s.daemon.Stop(ctx); err != nil {
		return err
	}
	tables, err := s.site.Router.Tables()
	if err != nil {
		return err
	}
	if len(tables) > 0 {
		return fmt.Errorf("the daemon left its tables behind: %v", tables)
	}
	s.say("The daemon has ended and taken its table with it; the lab goes with this program.")
	return nil
}

// faults fails if anything arrived where it should not have.
func (s *scene) faults() error {
	for _, n := range append([]*peer.Node{s.server}, s.clients...) {
		if f := n.Faults(); len(f) > 0 {
			return fmt.Errorf("%s: %s", n.Name(), f[0])
		}
	}
	return nil
}
