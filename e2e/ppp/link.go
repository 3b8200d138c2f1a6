package ppp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"pptp-alg/e2e/ppp/mppe"
)

// Link is one end of a PPP link. It is not for concurrent use.
type Link struct {
	cfg   Config
	out   Output
	stats Stats
	phase Phase
	err   error

	lcp, ccp, ipcp automaton
	options        lcpOptions
	crypt          crypt
	addresses      addresses

	demand *demand // what the other side has to prove; nil: nothing
	offer  *offer  // what this side has to
	keys   *keys   // what MS-CHAPv2 left for MPPE

	// early are frames of protocols whose turn has not come yet: the other
	// side is a step ahead.
	early []earlyFrame
}

type earlyFrame struct {
	protocol Protocol
	body     []byte
}

// earlyLimit bounds what a side that is ahead can make us keep.
const earlyLimit = 8

// New makes an end that is dead until Start.
func New(cfg Config) *Link {
	l := &Link{cfg: cfg.withDefaults()}
	l.lcp = automaton{link: l, protocol: ProtocolLCP, negotiator: (*lcp)(l)}
	l.ccp = automaton{link: l, protocol: ProtocolCCP, negotiator: (*ccp)(l)}
	l.ipcp = automaton{link: l, protocol: ProtocolIPCP, negotiator: (*ipcp)(l)}
	for _, a := range l.automata() {
		a.id, a.nextID = l.byte(), l.byte()
	}
	return l
}

func (l *Link) automata() []*automaton { return []*automaton{&l.lcp, &l.ccp, &l.ipcp} }

// Start begins to negotiate: the layer below is there.
func (l *Link) Start(now time.Time) {
	if l.phase != Dead || l.err != nil {
		return
	}
	l.options = newLCPOptions(l)
	l.enter(Establish)
	l.lcp.open(now)
	l.lcp.up(now)
}

// Close ends the link in order; it takes until the other side agrees.
func (l *Link) Close(now time.Time) { l.fail(now, ErrClosed) }

// fail ends the link for a reason; the first reason counts.
func (l *Link) fail(now time.Time, err error) {
	if l.err == nil {
		l.err = err
	}
	if l.phase == Dead || l.phase == Terminate {
		return
	}
	l.leaveNetwork(now)
	l.enter(Terminate)
	l.lcp.close(now)
	if l.lcp.state == closed || l.lcp.state == initial || l.lcp.state == stopped {
		l.enter(Dead)
	}
}

// Phase says how far the link is.
func (l *Link) Phase() Phase { return l.phase }

// Err says why the link ended or is ending; nil while it does not.
func (l *Link) Err() error { return l.err }

// Stats gives the counters.
func (l *Link) Stats() Stats { return l.stats }

// Local and Remote are the addresses agreed on, once the link is up.
func (l *Link) Local() netip.Addr { return l.addresses.local }

// Remote is the other side's address.
func (l *Link) Remote() netip.Addr { return l.addresses.remote }

// User is who the other side has proved to be; "" for nobody.
func (l *Link) User() string {
	if l.demand == nil || !l.demand.done {
		return ""
	}
	return l.demand.user
}

// Demanded is the method that the other side demanded proof by, as far as LCP
// has come.
func (l *Link) Demanded() Method { return l.options.theirMethod }

// MTU is the longest datagram that may be sent.
func (l *Link) MTU() int { return int(l.options.theirMRU) }

// Describe says what was agreed on about encryption: "none", or for example
// "MPPE 128 stateless".
func (l *Link) Describe() string { return l.crypt.String() }

// Take gives what has come together since the last call.
func (l *Link) Take() Output {
	out := l.out
	l.out = Output{}
	return out
}

// Deadline says when Tick is due; the zero time: never.
func (l *Link) Deadline() time.Time {
	var first time.Time
	consider := func(t time.Time) {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	for _, a := range l.automata() {
		consider(a.deadline)
	}
	if l.demand != nil {
		consider(l.demand.deadline)
	}
	if l.offer != nil {
		consider(l.offer.deadline)
	}
	consider(l.options.nextEcho)
	return first
}

// Tick does what is due.
func (l *Link) Tick(now time.Time) {
	for _, a := range l.automata() {
		a.tick(now)
	}
	if l.demand != nil {
		l.demand.tick(now)
	}
	if l.offer != nil {
		l.offer.tick(now)
	}
	(*lcp)(l).tickEcho(now)
}

// Receive takes a frame from the other side.
func (l *Link) Receive(now time.Time, frame []byte) {
	l.stats.Frames++
	protocol, body, err := ParseFrame(frame)
	if err != nil {
		l.stats.Malformed++
		return
	}
	l.dispatch(now, protocol, body)
}

func (l *Link) dispatch(now time.Time, protocol Protocol, body []byte) {
	if l.phase == Dead || protocol != ProtocolLCP && (l.phase == Establish || l.phase == Terminate) {
		// RFC 1661 sections 3.4 and 3.7: silently.
		l.stats.Unexpected++
		return
	}
	switch protocol {
	case ProtocolIPv4:
		if l.crypt.receiver != nil || l.cfg.Encryption.Required {
			l.stats.Clear++
			return
		}
		l.datagram(body)
	case ProtocolMPPE:
		l.decrypt(now, body)
	case ProtocolLCP, ProtocolCCP, ProtocolIPCP, ProtocolPAP, ProtocolCHAP:
		p, err := parsePacket(body)
		if err != nil {
			l.stats.Malformed++
			return
		}
		l.control(now, protocol, body, p)
	default:
		l.refuse(protocol, body)
	}
}

// control handles a packet of a control protocol.
func (l *Link) control(now time.Time, protocol Protocol, body []byte, p packet) {
	switch protocol {
	case ProtocolLCP:
		l.lcp.receive(now, p)
	case ProtocolPAP, ProtocolCHAP:
		l.authenticate(now, protocol, body, p)
	case ProtocolCCP:
		if l.phase != Authenticate && (!l.cfg.Encryption.wanted() || l.keys == nil || l.crypt.none && !l.ccp.running()) {
			l.refuse(protocol, body)
			return
		}
		l.orEarly(now, &l.ccp, protocol, body, p)
	case ProtocolIPCP:
		l.orEarly(now, &l.ipcp, protocol, body, p)
	}
}

// orEarly hands a packet to an automaton, or keeps it until that runs.
func (l *Link) orEarly(now time.Time, a *automaton, protocol Protocol, body []byte, p packet) {
	switch {
	case a.running():
		a.receive(now, p)
	case len(l.early) < earlyLimit:
		l.early = append(l.early, earlyFrame{protocol, append([]byte(nil), body...)})
	default:
		l.stats.Unexpected++
	}
}

// replay hands out what came too early for a protocol.
func (l *Link) replay(now time.Time, protocol Protocol) {
	early := l.early
	l.early = nil
	for _, f := range early {
		if f.protocol == protocol {
			l.dispatch(now, f.protocol, f.body)
		} else {
			l.early = append(l.early, f)
		}
	}
}

// refuse sends Protocol-Reject (RFC 1661 section 5.7).
func (l *Link) refuse(protocol Protocol, body []byte) {
	l.stats.Unknown++
	if l.lcp.state != opened {
		return
	}
	data := binary.BigEndian.AppendUint16(nil, uint16(protocol))
	data = append(data, body...)
	if limit := int(l.options.theirMRU) - packetHeader; len(data) > limit {
		data = data[:limit]
	}
	l.lcp.nextID++
	l.lcp.send(protocolReject, l.lcp.nextID, data)
}

// refused handles the other side's Protocol-Reject.
func (l *Link) refused(now time.Time, protocol Protocol) {
	switch protocol {
	case ProtocolCCP:
		l.noEncryption(now)
	case ProtocolIPCP, ProtocolIPv4:
		l.fail(now, ErrNoIPv4)
	case ProtocolMPPE:
		l.fail(now, ErrEncryption)
	case ProtocolLCP:
		l.fail(now, ErrUnwilling)
	case ProtocolPAP, ProtocolCHAP:
		if l.demand != nil && !l.demand.done || l.offer != nil && !l.offer.done {
			l.fail(now, ErrMethod)
		}
	}
}

// sendFrame sends a control packet, or with l.sendData a data one.
func (l *Link) sendFrame(protocol Protocol, body []byte) {
	frame := []byte{addressAll, controlUI}
	// LCP's own packets are never shortened (RFC 1661 sections 6.5 and 6.6).
	if l.options.theirACFC && protocol != ProtocolLCP {
		frame = frame[:0]
	}
	if l.options.theirPFC && protocol < 0x100 {
		frame = append(frame, byte(protocol))
	} else {
		frame = binary.BigEndian.AppendUint16(frame, uint16(protocol))
	}
	l.out.Frames = append(l.out.Frames, append(frame, body...))
}

// Errors of Send.
var (
	ErrDown   = errors.New("the link is not up")
	ErrTooBig = errors.New("datagram is longer than the other side takes")
)

// Send sends an IPv4 datagram.
func (l *Link) Send(datagram []byte) error {
	if l.phase != Up {
		return ErrDown
	}
	if len(datagram) > l.MTU() {
		return fmt.Errorf("%w: %d octets, MRU %d", ErrTooBig, len(datagram), l.MTU())
	}
	if l.crypt.sender == nil {
		l.sendFrame(ProtocolIPv4, datagram)
		return nil
	}
	plain := binary.BigEndian.AppendUint16(nil, uint16(ProtocolIPv4))
	l.sendFrame(ProtocolMPPE, l.crypt.sender.Seal(append(plain, datagram...)))
	return nil
}

func (l *Link) decrypt(now time.Time, body []byte) {
	if l.crypt.receiver == nil {
		l.stats.Unexpected++
		return
	}
	plain, err := l.crypt.receiver.Open(body)
	if err != nil {
		l.stats.Undecoded++
		if errors.Is(err, mppe.ErrReset) {
			(*ccp)(l).askReset(now)
		}
		return
	}
	protocol, datagram, err := ParseFrame(plain)
	if err != nil || protocol != ProtocolIPv4 {
		// Keys that do not fit show here: RFC 3078 has no checksum.
		l.stats.Undecoded++
		return
	}
	l.datagram(datagram)
}

func (l *Link) datagram(b []byte) {
	if l.phase != Up {
		l.stats.Unexpected++
		return
	}
	l.out.Datagrams = append(l.out.Datagrams, append([]byte(nil), b...))
}

func (l *Link) enter(p Phase) {
	if l.phase != p {
		l.phase = p
		l.out.Phases = append(l.out.Phases, p)
	}
}

// network begins the network phase: everybody has proved who he is.
func (l *Link) network(now time.Time) {
	l.enter(Network)
	switch e := l.cfg.Encryption; {
	case e.wanted() && l.keys != nil:
		l.ccp.open(now)
		l.ccp.up(now)
		l.replay(now, ProtocolCCP)
	case e.Required:
		l.fail(now, fmt.Errorf("%w: it needs MS-CHAPv2", ErrEncryption))
	default:
		l.replay(now, ProtocolCCP) // to refuse it
		l.startIPCP(now)
	}
}

// startIPCP follows when encryption is settled: no address before that.
func (l *Link) startIPCP(now time.Time) {
	if l.phase == Network && !l.ipcp.running() {
		l.ipcp.open(now)
		l.ipcp.up(now)
		l.replay(now, ProtocolIPCP)
	}
}

// noEncryption goes on in the clear, if that is allowed.
func (l *Link) noEncryption(now time.Time) {
	if l.phase != Network && l.phase != Up {
		return
	}
	l.crypt = crypt{none: true}
	if l.cfg.Encryption.Required {
		l.fail(now, ErrEncryption)
		return
	}
	l.ccp.down(now)
	l.replay(now, ProtocolCCP) // to refuse it
	if l.ipcp.state == opened {
		l.enter(Up)
		return
	}
	l.startIPCP(now)
}

// leaveNetwork takes the layers above LCP down.
func (l *Link) leaveNetwork(now time.Time) {
	for _, a := range []*automaton{&l.ipcp, &l.ccp} {
		a.down(now)
		a.enter(initial)
	}
	l.crypt, l.early = crypt{}, nil
	l.demand, l.offer, l.keys = nil, nil, nil
}

func (l *Link) random(b []byte) {
	if _, err := io.ReadFull(l.cfg.Random, b); err != nil {
		panic(fmt.Sprintf("ppp: random numbers: %v", err)) // the tests' sources do not end
	}
}

func (l *Link) byte() uint8 {
	var b [1]byte
	l.random(b[:])
	return b[0]
}
