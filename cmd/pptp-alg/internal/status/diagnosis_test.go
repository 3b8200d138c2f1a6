package status

import (
	"strings"
	"testing"
	"time"
)

// What is said of a call fits what was seen of it, and nothing is said where nothing
// is known.
func TestDiagnose(t *testing.T) {
	n := Known[uint64]
	const patience = 30 * time.Second
	for _, c := range []struct {
		name           string
		client, server *uint64
		up, over       time.Duration // up so long ago; over so long after that, or not
		want           string        // the beginning
	}{
		{"never up", n(0), n(0), 0, 0, ""},
		{"not counted", nil, nil, time.Hour, 0, ""},
		{"half counted", n(0), nil, time.Hour, 0, ""},
		{"both", n(1), n(1), time.Hour, 0, ""},
		{"young", n(9), n(0), patience - time.Second, 0, ""},
		{"silent server", n(9), n(0), patience, 0, "no GRE from the server for 30 s, 9 packets from the client: a firewall between may block protocol 47"},
		{"silent server, one packet", n(1), n(0), time.Hour, 0, "no GRE from the server for 1h00m, 1 packet from the client: a firewall"},
		{"silent client", n(0), n(3), patience, 0, "no GRE from the client for 30 s, 3 packets from the server: the client's firewall may"},
		{"silence", n(0), n(0), 45 * time.Second, 0, "no GRE from either side for 45 s: both may filter"},
		{"ended at once", n(9), n(0), time.Hour, time.Second, ""},
		{"ended without server", n(9), n(0), time.Hour, 12 * time.Second, "no GRE from the server for 12 s, 9 packets from"},
		{"ended without client", n(0), n(9), time.Hour, 12 * time.Second, "no GRE from the client for 12 s"},
		{"ended without any", n(0), n(0), time.Hour, 31 * time.Second, "no GRE from either side for 31 s"},
		{"ended soon", n(7), n(8), time.Hour, 5 * time.Second, "GRE came from both sides (client 7, server 8 packets): if the call failed, it failed inside PPP"},
		{"ended soon, but was used", n(51), n(900), time.Hour, 5 * time.Second, ""},
		{"ended soon, one side repeats itself", n(900), n(12), time.Hour, 5 * time.Second, "GRE came from both sides"},
		{"ended after use", n(7), n(8), time.Hour, 20 * time.Second, ""},
		{"ended, not counted", nil, nil, time.Hour, 12 * time.Second, ""},
	} {
		call := Call{PacketsFromClient: c.client, PacketsFromServer: c.server}
		if c.up > 0 {
			call.Established = ago(c.up)
		}
		if c.over > 0 {
			call.Ended = call.Established.Add(c.over)
		}
		got := call.Diagnose(now, patience)
		if (got == "") != (c.want == "") || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	dropped := Call{PacketsFromClient: n(7), PacketsFromServer: n(8), Established: ago(time.Hour), Reason: DroppedByAdministrator}
	dropped.Ended = dropped.Established.Add(5 * time.Second)
	if got := dropped.Diagnose(now, patience); got != "" {
		t.Errorf("a call that the administrator ended: %q", got)
	}
}
