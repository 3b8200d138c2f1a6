package status

import (
	"fmt"
	"net/netip"
	"strings"
)

// DropRequest says what is to be ended: a call, or everything of a client.
type DropRequest struct {
	Call   uint64     `json:"call,omitempty"`   // its number in the status
	Client netip.Addr `json:"client,omitzero"`  // the address that it has itself
	Others bool       `json:"others,omitempty"` // and the other calls of the call's control connection
}

// Dropped is what was ended.
type Dropped struct {
	Connections []DroppedConnection `json:"connections"`
}

// DroppedConnection is a control connection that was ended, with its calls.
type DroppedConnection struct {
	Client netip.AddrPort `json:"client"`
	Server netip.AddrPort `json:"server"`
	Calls  []uint64       `json:"calls"`
	// Told says which sides were told with PPTP's messages; the others got no
	// more than a reset.
	Told []string `json:"told"`
}

func (d DroppedConnection) String() string {
	calls := "no call"
	if len(d.Calls) > 0 {
		numbers := make([]string, len(d.Calls))
		for i, n := range d.Calls {
			numbers[i] = fmt.Sprint(n)
		}
		calls = "call " + strings.Join(numbers, ", ")
		if len(d.Calls) > 1 {
			calls = "calls " + strings.Join(numbers, ", ")
		}
	}
	told := "both sides were told"
	switch len(d.Told) {
	case 0:
		told = "both sides got a reset without words: they were in the middle of a message, or cannot be understood"
	case 1:
		told = fmt.Sprintf("the %s was told, the other side got a reset without words", d.Told[0])
	}
	return fmt.Sprintf("dropped %s of %v to %v; %s", calls, d.Client, d.Server, told)
}
