package alg_test

import (
	"testing"
	"time"
)

// TestAnHourIdle: nothing of a call or of its control connection ends by
// silence, and what is said afterwards is translated as before.
func TestAnHourIdle(t *testing.T) {
	r := newRig(t, talkRange)
	c := r.connect(2)
	told := id(c.send(client, message(ocrq, 5, -1)), 12)
	serverTold := id(c.send(server, message(ocrp, 9, told)), 12)
	if told == 5 || serverTold == 9 {
		t.Fatalf("told %d and %d: nothing to translate", told, serverTold)
	}
	r.wait(time.Hour)
	if r.table.Len() != 1 || len(r.plane.open) != 2 {
		t.Fatalf("after an hour: %d calls, %d mappings", r.table.Len(), len(r.plane.open))
	}
	if got := id(c.send(client, message(setLinkInfo, -1, serverTold)), 12); got != 9 {
		t.Errorf("Set-Link-Info names call %d, want the server's 9", got)
	}
	if got := id(c.send(client, message(clearRequest, 5, -1)), 12); got != told {
		t.Errorf("Call-Clear-Request names call %d, want %d", got, told)
	}
	if got := id(c.send(server, message(disconnectNotify, 9, -1)), 12); got != serverTold {
		t.Errorf("Call-Disconnect-Notify names call %d, want %d", got, serverTold)
	}
	if r.table.Len() != 0 {
		t.Errorf("%d calls after the end", r.table.Len())
	}
	r.empty()
}
