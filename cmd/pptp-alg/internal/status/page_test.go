package status

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// The document with which the tests look at LuCI's page is one that this program could write.
func TestPageSample(t *testing.T) {
	text, err := os.ReadFile("../../../../e2e/packaging/testdata/status.json")
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields()
	var s Status
	if err := d.Decode(&s); err != nil {
		t.Fatal(err)
	}
	if len(s.Calls) == 0 || len(s.Connections) == 0 || len(s.Ended) == 0 || s.FastPath == "" {
		t.Errorf("it lacks something: %+v", s)
	}
}
