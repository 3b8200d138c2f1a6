package status

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
)

// The sample by which the page in LuCI is tested has the fields of this package, and no other.
func TestSample(t *testing.T) {
	b, err := os.ReadFile("../../../../e2e/packaging/testdata/status.json")
	if err != nil {
		t.Fatal(err)
	}
	var s Status
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		t.Fatal(err)
	}
	if len(s.Calls) == 0 || len(s.Ended) == 0 || len(s.Connections) == 0 {
		t.Errorf("it shows too little: %+v", s)
	}
}
