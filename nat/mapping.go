package nat

import "errors"

// Mapping is one side's Call ID in its two forms. It corresponds to one
// conntrack entry and to one element of the guard set in the kernel.
type Mapping struct {
	Path     *Path
	Side     Side // the side whose Call ID this is, and towards which its GRE flows
	state    mappingState
	Real     uint16 // the ID that the side itself uses
	Told     uint16 // the ID that the other side uses for it
	spare    bool   // Told is the domain's spare ID: the call is refused
	promised bool   // Told was told already
	known    bool   // to the data plane, from Open to Free
	claimed  bool   // restored for an answer that is not complete, see Claim

	// Twin tells mappings of one control connection apart that leave with the
	// same tuple: the lowest number that none of the others has.
	Twin uint16

	// Past is what the data plane counted in flows of the mapping that it has
	// ended: those that were renewed, and the last one. It is the plane's.
	Past Traffic

	call  *Call    // nil while it is not known which call it is for
	next  *Mapping // another one that leaves with the same tuple
	until Deadline
}

// Traffic counts GRE packets. Bytes include the IP header.
type Traffic struct{ Packets, Bytes uint64 }

type mappingState uint8

const (
	mappingReserved mappingState = iota // the told ID is taken, no GRE flows
	mappingOpen                         // GRE flows
	mappingResting                      // GRE no longer flows, the told ID is not given away yet
	mappingFree                         // forgotten, or never was
)

// Arrives returns the addresses and the Call ID of GRE towards the mapping's
// side as it comes to the router.
func (m *Mapping) Arrives() Tuple { return m.Path.arrives(m.Side, m.Told) }

// Leaves returns the addresses and the Call ID of GRE towards the mapping's
// side as it leaves the router.
func (m *Mapping) Leaves() Tuple { return m.Path.leaves(m.Side, m.Real) }

// Open reports whether GRE flows through the mapping.
func (m *Mapping) Open() bool { return m.state == mappingOpen }

// Call returns the call that the mapping belongs to; nil while that is not known.
func (m *Mapping) Call() *Call { return m.call }

// Errors with which a DataPlane answers Open.
var (
	// ErrTaken says that something that is not ours already uses the tuple
	// that would arrive: the router's own tunnel, or a flow that was there
	// before. The table then tells the other side another Call ID.
	ErrTaken = errors.New("Call ID is in use by a flow that is not ours")
	// ErrAmbiguous says that the tuple that would leave is in use: nobody
	// could tell the two calls apart. The table refuses the call.
	ErrAmbiguous = errors.New("Call ID is in use by another call between the same addresses")
)

// DataPlane carries the GRE of mappings. The table calls it before the
// message that needs it goes on, so that no packet of a call finds nothing.
type DataPlane interface {
	// Open makes GRE towards m.Side flow from m.Arrives to m.Leaves. It
	// returns ErrTaken, ErrAmbiguous, or what the kernel said.
	Open(m *Mapping) error
	// Renew makes the flow last for another period, or flow again if it does
	// not. The kernel gives each flow a fixed life. When it fails it is asked
	// again soon: the flow may be gone then.
	Renew(m *Mapping) error
	// Close ends the flow. Packets that still arrive for it are nobody's:
	// they must not be taken for anything else until Free.
	Close(m *Mapping)
	// Free says that the told Call ID may be given to another call.
	Free(m *Mapping)
}
