package cli

import (
	"strconv"
	"testing"
)

// What `drop` is given: the number of a call, or a client's IPv4 address, and never both.
func FuzzDropArgument(f *testing.F) {
	for _, s := range []string{"17", "0", "-1", "+5", "007", "18446744073709551616", "192.168.1.20", "::1", "1.2.3.4/32", "", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, arg string) {
		var o dropOptions
		err := o.choose(arg)
		switch call, client := o.request.Call, o.request.Client; {
		case err != nil && (call != 0 || client.IsValid()):
			t.Errorf("%q: %v, and yet %+v", arg, err, o.request)
		case err != nil:
		case (call != 0) == client.IsValid():
			t.Errorf("%q chooses %+v", arg, o.request)
		case client.IsValid() && (!client.Is4() || client.String() != arg):
			t.Errorf("%q is client %v", arg, client)
		case call != 0:
			if n, err := strconv.ParseUint(arg, 10, 64); err != nil || n != call {
				t.Errorf("%q is call %d", arg, call)
			}
		}
	})
}
