package probe

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/ppp"
	"pptp-alg/e2e/tunnel"
	"pptp-alg/e2e/wire"
)

// Config says what to probe.
type Config struct {
	Server         netip.AddrPort
	Source         netip.Addr    // zero: the kernel's choice
	Network        peer.Network  // nil: the process's own
	User, Password string        // no User: stop after LCP
	CallID         int           // negative: at random
	Patience       time.Duration // for each step; default 10 s
	Verbose        func(format string, args ...any)
}

// defaultPatience is how long each step may take.
const defaultPatience = 10 * time.Second

// run is one probe.
type run struct {
	cfg     Config
	out     io.Writer
	witness *witness
	client  *tunnel.Client
}

// Run probes, tells to out what happens, and says what came of it.
func Run(ctx context.Context, out io.Writer, cfg Config) Outcome {
	if cfg.Patience == 0 {
		cfg.Patience = defaultPatience
	}
	if cfg.Verbose == nil {
		cfg.Verbose = func(string, ...any) {}
	}
	r := &run{cfg: cfg, out: out}
	outcome, why := r.probe(ctx)
	if why != "" {
		r.say("%s", why)
	}
	r.say("Result: %v.", outcome)
	return outcome
}

func (r *run) say(format string, args ...any) { fmt.Fprintf(r.out, format+"\n", args...) }

// probe goes step by step. why is more about an outcome than its own words.
func (r *run) probe(ctx context.Context) (o Outcome, why string) {
	source := r.cfg.Source
	if !source.IsValid() {
		var err error
		if source, err = r.sourceAddress(); err != nil {
			return Unreachable, fmt.Sprintf("There is no route to %v: %v.", r.cfg.Server.Addr(), err)
		}
	}
	r.witness = listen(r.cfg.Network, source, r.cfg.Server.Addr())
	defer r.witness.close()
	var err error
	r.client, err = tunnel.StartClient(peer.Config{Network: r.cfg.Network, Address: source, Name: "here", Timeout: r.cfg.Patience,
		CallID: r.callID(), Stray: r.witness.stray, Log: r.cfg.Verbose}, tunnel.Config{PPP: r.ppp()})
	if err != nil {
		return Failed, fmt.Sprintf("%v.", err)
	}
	defer func() { _ = r.client.Close() }()
	session, o, why := r.control(ctx)
	if o != Works {
		return o, why
	}
	tun, err := r.client.Call(ctx, session)
	if err != nil {
		return callFailed(err, session)
	}
	r.say("The server has accepted the call: its Call ID is %d, ours %d.", tun.Call().PeerID(), tun.Call().ID())
	if o, why = r.lcp(ctx, tun); o == Works && r.cfg.User != "" {
		o, why = r.login(ctx, tun)
	}
	leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	_ = tun.Close(leave) // what matters is known
	_ = session.Stop(leave)
	return o, why
}

// sourceAddress asks the kernel from where it would send to the server; no
// packet leaves.
func (r *run) sourceAddress() (source netip.Addr, err error) {
	ask := func() error {
		conn, err := net.Dial("udp4", r.cfg.Server.String())
		if err != nil {
			return err
		}
		source = conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
		return conn.Close()
	}
	if r.cfg.Network == nil {
		return source, ask()
	}
	err = r.cfg.Network.Do(ask)
	return source, err
}

func (r *run) callID() func() uint16 {
	if r.cfg.CallID >= 0 {
		return peer.Fixed(uint16(r.cfg.CallID))
	}
	var b [2]byte
	_, _ = rand.Read(b[:]) // never fails
	return peer.Fixed(max(1, binary.BigEndian.Uint16(b[:])))
}

func (r *run) ppp() ppp.Config {
	// Requests come often: a probe has little time.
	c := ppp.Config{User: r.cfg.User, Password: r.cfg.Password, Magic: true, MRU: 1400, PFC: true, ACFC: true, Restart: time.Second,
		Offer: []ppp.Method{ppp.MSCHAPv2, ppp.CHAPMD5, ppp.PAP}, Encryption: ppp.AnyEncryption(), MaxConfigure: 100}
	c.OnlyLCP = c.User == ""
	return c
}

// control opens the TCP connection and the control connection on it.
func (r *run) control(ctx context.Context) (*peer.Session, Outcome, string) {
	s, err := r.client.Connect(ctx, r.cfg.Server)
	var timeout net.Error
	switch {
	case err == nil:
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return nil, TCPRefused, fmt.Sprintf("The connection to %v was refused.", r.cfg.Server)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		if said := r.witness.prohibited(); said != "" {
			return nil, TCPFiltered, fmt.Sprintf("A firewall rejects TCP to %v: %s.", r.cfg.Server, said)
		}
		return nil, Unreachable, fmt.Sprintf("A router, or this machine, says that %v cannot be reached: %v.", r.cfg.Server.Addr(), err)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return nil, TCPFiltered, fmt.Sprintf("Nothing answered on %v within %v: a firewall drops it, or the server is off.", r.cfg.Server, r.cfg.Patience)
	default:
		return nil, Failed, fmt.Sprintf("%v.", err)
	}
	r.say("TCP to %v works, from %v.", r.cfg.Server, s.Local().Addr())
	if err := s.Start(ctx); err != nil {
		for _, m := range s.Received() {
			if reply, ok := m.(*wire.StartReply); ok && reply.Result != wire.StartOK {
				return nil, ControlRefused, fmt.Sprintf("The server says: %s.", words(startResults, reply.Result, reply.ErrorCode))
			}
		}
		return nil, ControlSilent, fmt.Sprintf("No proper answer to PPTP's first message: %v.", err)
	}
	for _, m := range s.Received() {
		if reply, ok := m.(*wire.StartReply); ok {
			r.say("The control connection is up; the server calls itself %q, made by %q.", reply.HostName, reply.Vendor)
		}
	}
	return s, Works, ""
}

func callFailed(err error, s *peer.Session) (Outcome, string) {
	var refused *peer.RefusedError
	if errors.As(err, &refused) {
		why := fmt.Sprintf("The server says: %s.", words(callResults, refused.Result, refused.ErrorCode))
		if refused.Result == wire.ResultError && refused.ErrorCode == wire.ErrorNoResource {
			why += " A router with pptp-alg on the way says the same when it cannot have the call; its status tells why."
		}
		return CallRefused, why
	}
	select {
	case <-s.Done():
		return CallSilent, "The control connection was closed instead of an answer to the call request."
	default:
		return CallSilent, fmt.Sprintf("%v.", err)
	}
}

// lcp waits for PPP's first layer, and explains why it does not come.
func (r *run) lcp(ctx context.Context, tun *tunnel.Tunnel) (Outcome, string) {
	limit, cancel := context.WithTimeout(ctx, r.cfg.Patience)
	defer cancel()
	err := tun.Reach(limit, ppp.Authenticate)
	complaints, strays := r.witness.heard()
	st := tun.State()
	if err == nil {
		r.say("GRE goes both ways: the server answers LCP. It demands %v for a login.", st.Demanded)
		if len(strays) > 0 {
			r.say("But there was also %s: not meant for us, or for another client on this machine.", strings.Join(strays, ", "))
		}
		return Works, ""
	}
	r.cfg.Verbose("LCP: %v; %+v", err, st)
	foreign := st.PPP.Foreign + st.Flow.Foreign
	switch {
	case st.SendErr != nil:
		return GRENotLeaving, fmt.Sprintf("This machine does not let GRE out: %v.", st.SendErr)
	case errors.Is(err, ppp.ErrLoop):
		return WrongPeer, "What was sent came back: it is our own GRE that we hear."
	case foreign > 0:
		return WrongPeer, fmt.Sprintf("%d packets came for our call that answer what we never sent: another client's, it seems. "+
			"The router between mixes up clients with the same Call ID.", foreign)
	case st.Packets == 0 && len(strays) > 0:
		return WrongPeer, fmt.Sprintf("Nothing came for our call (Call ID %d from %v), but %s did.", tun.Call().ID(), r.cfg.Server.Addr(), strings.Join(strays, ", "))
	case len(complaints) > 0:
		return GRENotLeaving, fmt.Sprintf("Our GRE is turned back: %s.", strings.Join(complaints, ", "))
	case st.Packets == 0:
		return GRENotReturning, fmt.Sprintf("%d GRE packets were sent and none came back within %v. Either a router on the way does not let GRE "+
			"(IP protocol 47) through, or it translates addresses and does not know PPTP.", st.Flow.Sent, r.cfg.Patience)
	case st.Flow.Acks == 0:
		return GRENotLeaving, fmt.Sprintf("%d GRE packets came from the server, but it has acknowledged none of the %d from here.", st.Packets, st.Flow.Sent)
	}
	return PPPFailed, fmt.Sprintf("GRE goes both ways, but LCP does not come up: %v.", err)
}

// login goes on until IP flows.
func (r *run) login(ctx context.Context, tun *tunnel.Tunnel) (Outcome, string) {
	limit, cancel := context.WithTimeout(ctx, r.cfg.Patience)
	defer cancel()
	err := tun.Reach(limit, ppp.Up)
	switch {
	case err == nil:
	case errors.Is(err, ppp.ErrPassword), errors.Is(err, ppp.ErrProof), errors.Is(err, ppp.ErrMethod):
		return NotAuthenticated, fmt.Sprintf("%v.", err)
	default:
		return PPPFailed, fmt.Sprintf("%v.", err)
	}
	st := tun.State()
	r.say("Logged in as %q; encryption: %s; our address is %v, the server's %v.", r.cfg.User, st.Encryption, st.Local, st.Remote)
	if !st.Remote.IsValid() {
		return Works, ""
	}
	const pings = 3
	n, _ := r.client.Ping(limit, tun, pings, 56, r.cfg.Patience/pings)
	r.say("%d of %d pings through the tunnel were answered (some servers answer none).", n, pings)
	return Works, ""
}
