package cli

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"pptp-alg/cmd/pptp-alg/internal/control"
	"pptp-alg/cmd/pptp-alg/internal/status"
)

// The daemon is asked for what the command line says, and what it ended, or why it
// did not, is printed.
func TestDrop(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s, err := control.Listen(control.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var asked status.DropRequest
	s.Handle("drop", func(_ context.Context, args json.RawMessage) (any, error) {
		asked = status.DropRequest{}
		if err := json.Unmarshal(args, &asked); err != nil {
			return nil, err
		}
		if asked.Call == 404 {
			return nil, errors.New("there is no call 404")
		}
		c := status.DroppedConnection{
			Client: netip.MustParseAddrPort("10.0.0.11:40000"), Server: netip.MustParseAddrPort("203.0.113.2:1723"),
			Calls: []uint64{17, 18}, Told: []string{"client", "server"},
		}
		half, mute := c, c
		half.Calls, half.Told = []uint64{19}, []string{"server"}
		mute.Calls, mute.Told = nil, nil
		return status.Dropped{Connections: []status.DroppedConnection{c, half, mute}}, nil
	})
	go s.Serve()
	for _, c := range []struct {
		args []string
		want status.DropRequest
	}{
		{[]string{"17"}, status.DropRequest{Call: 17}},
		{[]string{"17", "--connection"}, status.DropRequest{Call: 17, Others: true}},
		{[]string{"192.168.1.20"}, status.DropRequest{Client: netip.MustParseAddr("192.168.1.20")}},
	} {
		code, out, stderr := exec(t, append([]string{"drop", "--socket", path}, c.args...)...)
		if code != 0 || asked != c.want || stderr != "" {
			t.Errorf("%v: code %d, asked for %+v, %q", c.args, code, asked, stderr)
		}
		golden(t, "drop.txt", out)
	}
	if code, out, _ := exec(t, "drop", "17", "--json", "--socket", path); code != 0 || !strings.HasPrefix(out, `{"connections":[{"client":"10.0.0.11:40000"`) {
		t.Errorf("JSON: code %d, %q", code, out)
	}
	if code, out, stderr := exec(t, "drop", "404", "--socket", path); code != 1 || out != "" || !strings.Contains(stderr, "no call 404") {
		t.Errorf("a refusal: code %d, %q, %q", code, out, stderr)
	}
	if code, _, stderr := exec(t, "drop", "17", "--socket", path+"x"); code != 3 || !strings.Contains(stderr, "start one with") {
		t.Errorf("no daemon: code %d, %q", code, stderr)
	}
	for _, args := range [][]string{{}, {"0"}, {"-1"}, {"laptop"}, {"::1"}, {"10.0.0.0/8"}, {"1", "2"}} {
		if code, _, stderr := exec(t, append([]string{"drop", "--socket", path}, args...)...); code != 2 || stderr == "" {
			t.Errorf("%v: code %d, %q", args, code, stderr)
		}
	}
}
