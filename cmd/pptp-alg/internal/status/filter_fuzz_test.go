package status

import (
	"encoding/json"
	"net/netip"
	"testing"
)

// What people and programs choose calls by: a network that is taken contains the
// address that it was written with, and comes out as it went in, also through JSON.
func FuzzParseHosts(f *testing.F) {
	for _, s := range []string{"192.168.0.0/24", "192.168.0.77/24", "10.1.2.3", "10.1.2.3/0", "fe80::1", "::ffff:10.0.0.1", "10.0.0.0/33", "1.2.3.4%eth0", ""} {
		f.Add(s, []byte(`{"client":"10.0.0.0/8","server":"","state":"warning"}`))
	}
	f.Fuzz(func(t *testing.T, text string, request []byte) {
		if p, err := ParseHosts(text); err == nil {
			again, err := ParseHosts(p.String())
			if err != nil || again != p || p != p.Masked() || !p.Addr().Is4() {
				t.Errorf("%q is %v, then %v, %v", text, p, again, err)
			}
			if a, err := netip.ParseAddr(text); err == nil && (p.Bits() != 32 || !p.Contains(a)) {
				t.Errorf("%q is %v", text, p)
			}
		}
		var filter, same Filter
		if json.Unmarshal(request, &filter) != nil {
			return
		}
		b, err := json.Marshal(filter)
		if err != nil || json.Unmarshal(b, &same) != nil || same != filter {
			t.Errorf("%q is %+v, then %+v, %v", request, filter, same, err)
		}
		var all Filter
		if c := (Call{}); !all.Call(c) || filter.Client.IsValid() && filter.Call(c) {
			t.Errorf("%+v lets a call without addresses through", filter)
		}
	})
}
