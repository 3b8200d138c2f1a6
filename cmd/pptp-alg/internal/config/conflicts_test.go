package config

import "testing"

// What cannot go together is refused, with the line of the setting that is there.
func TestConflicts(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"socket = '/run/a'\nstate = '/run/a'", `x.toml:2: state must not be the same path as socket, "/run/a"`},
		{"state = '/run/a'\nsocket = '/run//a'", `x.toml:1: state must not be the same path as socket, "/run//a"`},
		{"state = '/run/pptp-alg/control.sock.lock'", `x.toml:1: state must not be the same path as the lock beside socket, "/run/pptp-alg/control.sock.lock"`},
		{"\ncall_log.to = '/run/pptp-alg/control.state'", `x.toml:2: call_log.to must not be the same path as state, "/run/pptp-alg/control.state"`},
		{"\nmetrics.listen = '/run/pptp-alg/control.sock'", `x.toml:2: metrics.listen must not be the same path as socket, "/run/pptp-alg/control.sock"`},
		{"capture.directory = '/a'\ncall_log.to = '/a'", `x.toml:1: capture.directory must not be the same path as call_log.to, "/a"`},
		// The state's default follows the socket: the fault is the other's, which the file has.
		{"socket = '/a/b.sock'\ncall_log.to = '/a/b.state'", `x.toml:2: call_log.to must not be the same path as state, "/a/b.state"`},
		{"[capture]\ndirectory = '/a'\ntotal_megabytes = 1\nconnection_kilobytes = 2000",
			`x.toml:4: capture.connection_kilobytes must fit into capture.total_megabytes, 1: choose at most 1000`},
		{"socket = '/run/'", `x.toml:1: socket must be the path of a file, not "/run/"`},
		{"state = '/run/'", `x.toml:1: state must be the path of a file, not "/run/"`},
		{"metrics.listen = '/run/'", `x.toml:1: metrics.listen must be the path of a Unix socket, not "/run/"`},
		{"call_log.to = '/run/'", `x.toml:1: call_log.to must be the path of a file, not "/run/"`},
	} {
		if _, err := Parse("x.toml", []byte(c.file)); err == nil || err.Error() != c.want {
			t.Errorf("%s\n got %v\nwant %s", c.file, err, c.want)
		}
	}
	c := Default()
	c.State, c.CallLog.To = "", ""
	if err := c.Check(); err != nil {
		t.Errorf("what is empty is in conflict: %v", err)
	}
	c.State = c.Socket
	if err := c.Check(); err == nil || err.Error() != `state must not be the same path as socket, "`+c.Socket+`"` {
		t.Errorf("by flags: %v", err)
	}
}
