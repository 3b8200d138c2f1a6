package status

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
	"unicode"
)

// Any document that a daemon, or something else on its socket, may answer: filtering
// it keeps it JSON, and the tables for people hold no character that a terminal would
// take for a command.
func FuzzDocument(f *testing.F) {
	f.Add([]byte(`{"version":"1","calls":[{"id":1,"direction":"outgoing","state":"established","client":{"address":"10.0.0.1","call_id":7,
		"translated_address":"192.0.2.1","translated_call_id":8},"server":{"address":"203.0.113.1","call_id":null},"packets_from_client":3,"reason":"x"}],
		"connections":[{"client":{"address":"10.0.0.1:4000"},"state":"up","calls":1}],"ended":[{"id":2,"reason":"cleared","state":"ended"}],"counters":{"calls":1}}`))
	f.Add([]byte(`{"calls":[{"state":"\u001b[2J"}]}`))
	f.Add([]byte(`{"calls":null,"counters":{}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, document []byte) {
		if b, err := (Filter{State: "established"}).JSON(document); err == nil && !json.Valid(b) {
			t.Errorf("%q filtered is %q", document, b)
		}
		var s Status
		if json.Unmarshal(document, &s) != nil {
			return
		}
		s.Sort()
		for _, v := range []View{{Now: time.Unix(1e9, 0)}, {Now: time.Unix(1e9, 0), Width: 40, Before: &s, Elapsed: time.Second}} {
			var out bytes.Buffer
			if v.Calls(&out, s) != nil || v.Connections(&out, s) != nil || v.Ended(&out, s) != nil {
				t.Error("writing to memory failed")
			}
			for _, r := range out.String() {
				if r != '\n' && unicode.IsControl(r) {
					t.Fatalf("%q comes out with %q:\n%q", document, r, out.String())
				}
			}
		}
		if _, err := json.Marshal(s); err != nil {
			t.Errorf("what was read cannot be written: %v", err)
		}
	})
}
