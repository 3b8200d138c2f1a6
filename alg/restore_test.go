package alg_test

import (
	"testing"

	"pptp-alg/nat"
)

// Somebody asks for a call while nobody translates, and the answer comes when somebody does again: the call is taken up, as
// the side that answers knows it, and so is everything after it.
func TestAnsweredAfterTheRestart(t *testing.T) {
	before := newRig(t, talkRange)
	c := before.connect(2)
	c.send(client, message(sccrq, -1, -1))
	c.send(server, message(sccrp, -1, -1))
	was := c.Record()

	after := newRig(t, talkRange)
	calls, err := after.table.RestoreConnection(was.ID, was.Path, false)
	if err != nil {
		t.Fatal(err)
	}
	restored := &conn{rig: after, flow: c.flow, isn: c.isn, top: c.top, acked: c.acked}
	if restored.Connection, err = after.alg.Restore(after.now, was, calls); err != nil {
		t.Fatal(err)
	}
	restored.top[client] += len(message(ocrq, 4, -1)) // which went by untranslated
	restored.acked[client] = restored.top[client]
	answer := restored.send(server, message(ocrp, 9, 4))
	if id(answer, 14) != 4 || id(answer, 12) == 9 {
		t.Errorf("the answer is for call %d, with Call ID %d", id(answer, 14), id(answer, 12))
	}
	up := 0
	after.table.Calls(func(call *nat.Call) {
		if call.State == nat.Established && call.End(client).Told == 4 {
			up++
		}
	})
	if up != 1 {
		t.Errorf("%d calls are up", up)
	}
	same(t, "what follows", restored.send(client, message(echoRequest, -1, -1)), message(echoRequest, -1, -1))
	restored.Close(after.now, "over")
	after.empty()
}
