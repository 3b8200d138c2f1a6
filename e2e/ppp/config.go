package ppp

import (
	"crypto/rand"
	"errors"
	"io"
	"net/netip"
	"time"

	"pptp-alg/e2e/ppp/mppe"
)

// Method is a way to prove who one is.
type Method uint8

// The methods, the strongest last.
const (
	NoMethod Method = iota
	PAP
	CHAPMD5
	MSCHAPv2
)

func (m Method) String() string {
	return [...]string{"none", "PAP", "CHAP-MD5", "MS-CHAPv2"}[min(m, 4)%4]
}

// Encryption says what of MPPE an end is willing to do. The zero value is none.
type Encryption struct {
	Strengths           []mppe.Strength
	Stateless, Stateful bool // at least one, if there are strengths
	// Required ends a link on which it cannot be had; otherwise the link goes
	// on in the clear.
	Required bool
}

func (e Encryption) wanted() bool { return len(e.Strengths) > 0 && (e.Stateless || e.Stateful) }

// AnyEncryption is willing to do all there is.
func AnyEncryption() Encryption {
	return Encryption{Strengths: []mppe.Strength{mppe.Bits40, mppe.Bits56, mppe.Bits128}, Stateless: true, Stateful: true}
}

// Config describes an end of a link. The zero value asks for nothing and takes
// what comes.
type Config struct {
	// What to ask the other side for in LCP (RFC 1661 section 6, RFC 1662
	// section 7.1). An MRU of 0 and a nil ACCM are not asked for.
	MRU        uint16
	ACCM       *uint32
	Magic      bool
	PFC, ACFC  bool
	RefuseLCP  []uint8 // kinds of options always rejected
	RefuseIPCP []uint8

	// Demand is what the other side has to prove itself by, the favourite
	// first; Secret knows the passwords. Name is this side's in challenges.
	Demand []Method
	Secret func(user string) (password string, ok bool)
	Name   string

	// Offer is what this side is ready to prove itself by.
	Offer          []Method
	User, Password string

	Encryption Encryption

	// Address is this side's. Without one it asks the other side. Assign is
	// what the other side gets when it asks; without one it has to know its
	// own.
	Address, Assign netip.Addr

	// Echo is the interval between LCP Echo-Requests, none by default. The
	// link ends when EchoFailures (default 4) go unanswered one after another.
	Echo         time.Duration
	EchoFailures int

	// OnlyLCP ends the link as soon as LCP is up: for those who want to know
	// whether anybody is there, and do not want to log in.
	OnlyLCP bool

	// The timers and counters of RFC 1661 section 4.6; defaults 3 s, 2, 10, 5.
	Restart                                time.Duration
	MaxTerminate, MaxConfigure, MaxFailure int

	// Random gives magic numbers, identifiers and challenges; default
	// crypto/rand.
	Random io.Reader
}

func (c Config) withDefaults() Config {
	if c.Restart == 0 {
		c.Restart = 3 * time.Second
	}
	for _, d := range []struct {
		field *int
		value int
	}{{&c.MaxTerminate, 2}, {&c.MaxConfigure, 10}, {&c.MaxFailure, 5}, {&c.EchoFailures, 4}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.Secret == nil {
		c.Secret = func(string) (string, bool) { return "", false }
	}
	return c
}

// Why a link ended, see Link.Err.
var (
	ErrNoAnswer   = errors.New("the other side does not answer")
	ErrClosed     = errors.New("closed here")
	ErrTerminated = errors.New("the other side ended the link")
	ErrLoop       = errors.New("the link is looped: what is sent comes back")
	ErrEcho       = errors.New("the other side has stopped answering LCP echoes")
	ErrMethod     = errors.New("no common authentication method")
	ErrPassword   = errors.New("authentication refused")
	ErrProof      = errors.New("the server does not know the password: its proof is wrong")
	ErrEncryption = errors.New("no encryption agreed on")
	ErrNoIPv4     = errors.New("no addresses agreed on")
	ErrUnwilling  = errors.New("the other side cannot do PPP's basics")
)

// Phase is how far a link has come (RFC 1661 section 3.2).
type Phase uint8

// The phases. Up is ours: IPv4 flows, encrypted if that was wanted.
const (
	Dead Phase = iota
	Establish
	Authenticate
	Network
	Up
	Terminate
)

func (p Phase) String() string {
	return [...]string{"dead", "establish", "authenticate", "network", "up", "terminate", "?"}[min(p, 6)]
}

// Output is what a link has to say since it was asked last.
type Output struct {
	Frames    [][]byte // to the other side
	Datagrams [][]byte // IPv4, for this side
	Phases    []Phase  // that began
}

// Stats counts what a link saw.
type Stats struct {
	Frames     int // received
	Malformed  int // frames, packets and options that are none
	Foreign    int // answers to what this side never asked
	Unexpected int // of a protocol whose time it was not
	Unknown    int // protocols rejected
	Clear      int // datagrams dropped because they should have been encrypted
	Undecoded  int // encrypted packets dropped
	Resets     int // CCP Reset-Requests sent
	Echoes     int // LCP echoes answered by the other side
}
