package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"
)

// Status is the daemon's answer to "status --json", as the documentation
// promises it. Fields that the lab does not know are left alone.
type Status struct {
	Version     string                     `json:"version"`
	Anchor      string                     `json:"anchor"`
	Calls       []CallStatus               `json:"calls"`
	Connections []json.RawMessage          `json:"connections"`
	Ended       []CallStatus               `json:"ended"` // latest first
	Counters    map[string]json.RawMessage `json:"counters"`
}

// StateUp is the state of a call that both sides agreed on.
const StateUp = "established"

// CallStatus is one call.
type CallStatus struct {
	ID                json.RawMessage `json:"id"`
	Direction         string          `json:"direction"` // outgoing or incoming
	State             string          `json:"state"`
	Since             time.Time       `json:"since"`
	Client            SideStatus      `json:"client"` // opened the TCP connection
	Server            SideStatus      `json:"server"`
	PacketsFromClient uint64          `json:"packets_from_client"`
	BytesFromClient   uint64          `json:"bytes_from_client"`
	PacketsFromServer uint64          `json:"packets_from_server"`
	BytesFromServer   uint64          `json:"bytes_from_server"`
	Warning           string          `json:"warning"`   // what is wrong with a call that is up
	Reason            string          `json:"reason"`    // why it ended
	Diagnosis         string          `json:"diagnosis"` // what its GRE says about that
	FastPath          *FastPathStatus `json:"fast_path"` // nil: it is off
}

// FastPathStatus says in which directions a call does without the ordinary path.
type FastPathStatus struct {
	ToServer bool   `json:"to_server"`
	ToClient bool   `json:"to_client"`
	Reason   string `json:"reason"`
}

// SideStatus is one side of a call; Translated is what the other side sees.
type SideStatus struct {
	Address           netip.Addr `json:"address"`
	CallID            uint16     `json:"call_id"`
	TranslatedAddress netip.Addr `json:"translated_address"`
	TranslatedCallID  uint16     `json:"translated_call_id"`
}

func (s SideStatus) String() string {
	return fmt.Sprintf("%v call %d (seen as %v call %d)", s.Address, s.CallID, s.TranslatedAddress, s.TranslatedCallID)
}

// Open counts the control connections that are not over.
func (s *Status) Open() (n int) {
	for _, raw := range s.Connections {
		var c struct {
			State string `json:"state"`
		}
		if json.Unmarshal(raw, &c) == nil && c.State != "closing" && c.State != "closed" {
			n++
		}
	}
	return n
}

// Counter reads a counter that is a plain number; 0 if there is none.
func (s *Status) Counter(name string) (value uint64) {
	_ = json.Unmarshal(s.Counters[name], &value)
	return value
}

// Up gives the calls that carry traffic.
func (s *Status) Up() []CallStatus {
	var up []CallStatus
	for _, c := range s.Calls {
		if c.State == StateUp {
			up = append(up, c)
		}
	}
	return up
}

// Status asks the daemon for its calls.
func (d *Daemon) Status(ctx context.Context) (*Status, error) {
	b, err := d.StatusJSON(ctx)
	if err != nil {
		return nil, err
	}
	s := new(Status)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("read status: %w in %s", err, b)
	}
	return s, nil
}

// WaitStatus asks until the answer is right. On the deadline it tells what was
// still wrong.
func (d *Daemon) WaitStatus(ctx context.Context, right func(*Status) error) (*Status, error) {
	for {
		s, err := d.Status(ctx)
		if err == nil {
			if err = right(s); err == nil {
				return s, nil
			}
		}
		select {
		case <-d.done:
			return nil, fmt.Errorf("daemon ended: %w", d.exitError())
		case <-ctx.Done():
			return nil, err
		case <-time.After(50 * time.Millisecond):
		}
	}
}
