package status

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A Filter chooses calls and connections. Zero fields let everything through.
type Filter struct {
	Client netip.Prefix `json:"client"` // of the address that the side itself has
	Server netip.Prefix `json:"server"`
	State  string       `json:"state"`
}

// StateWarning chooses, beside the states, the calls that something is wrong with.
const StateWarning = "warning"

// states of calls and of control connections, as the daemon names them.
var states = []string{
	"requested", "connecting", "established", "clearing", "ended",
	"starting", "refused", "stopping", "closing", "closed", StateWarning,
}

// ParseState checks the name of a state.
func ParseState(s string) (string, error) {
	if !slices.Contains(states, s) {
		return "", fmt.Errorf("is none of %s", strings.Join(states, ", "))
	}
	return s, nil
}

// ParseHosts reads an IPv4 address or a network such as 192.168.0.0/24.
func ParseHosts(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if a, e := netip.ParseAddr(s); e == nil {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	if err != nil || !p.Addr().Is4() {
		return p, fmt.Errorf("must be an IPv4 address or a network such as 192.168.0.0/24")
	}
	return p.Masked(), nil
}

func (f Filter) empty() bool { return f == Filter{} }

func (f Filter) hosts(client, server netip.Addr) bool {
	return (!f.Client.IsValid() || f.Client.Contains(client)) && (!f.Server.IsValid() || f.Server.Contains(server))
}

// Call reports whether a call is among those chosen.
func (f Filter) Call(c Call) bool {
	return f.hosts(c.Client.Address, c.Server.Address) &&
		(f.State == "" || f.State == c.State || f.State == StateWarning && c.Warning != "")
}

// Connection reports whether a control connection is.
func (f Filter) Connection(c Connection) bool {
	return f.hosts(c.Client.Address.Addr(), c.Server.Address.Addr()) &&
		(f.State == "" || f.State == c.State || f.State == StateWarning && c.Unparsed != "")
}

// JSON filters a document as the daemon wrote it, and keeps fields that this program
// does not know.
func (f Filter) JSON(document []byte) ([]byte, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(document, &all); err != nil {
		return nil, err
	}
	for name, keep := range map[string]func(json.RawMessage) (bool, error){
		"calls": keeper(f.Call), "ended": keeper(f.Call), "connections": keeper(f.Connection),
	} {
		items := []json.RawMessage{}
		if err := json.Unmarshal(all[name], &items); err != nil {
			return nil, err
		}
		kept := []json.RawMessage{}
		for _, i := range items {
			k, err := keep(i)
			if err != nil {
				return nil, err
			}
			if k {
				kept = append(kept, i)
			}
		}
		var err error
		if all[name], err = json.Marshal(kept); err != nil {
			return nil, err
		}
	}
	return json.Marshal(all)
}

func keeper[T any](keep func(T) bool) func(json.RawMessage) (bool, error) {
	return func(item json.RawMessage) (bool, error) {
		var v T
		err := json.Unmarshal(item, &v)
		return err == nil && keep(v), err
	}
}
