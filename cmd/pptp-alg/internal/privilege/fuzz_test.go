package privilege

import (
	"regexp"
	"testing"

	"golang.org/x/sys/unix"
)

// Any status of a thread: it is taken for one of a thread that dropped everything only
// if the first line with each name says so.
func FuzzVerifyThread(f *testing.F) {
	f.Add([]byte("Name:\tx\nCapInh:\t0\nCapPrm:\t1000\nCapEff:\t1000\nCapBnd:\t1000\nCapAmb:\t0\nNoNewPrivs:\t1\n"))
	f.Add([]byte("CapInh:\t0000000000000000\nCapPrm:\t0000000000001000\nCapEff:\t0000000000001000\nNoNewPrivs:\t1"))
	f.Add([]byte("CapEff:\t1000\nCapEff:\tffff\nCapInh: 0\nCapPrm: 1000\nNoNewPrivs: 0"))
	const space = `[\s\v\x{85}\p{Z}]*`
	first := map[string]*regexp.Regexp{}
	for name, value := range map[string]string{"CapInh": "0+", "CapPrm": "0*1000", "CapEff": "0*1000", "CapAmb": "0+", "NoNewPrivs": "0*1"} {
		// Everything before it is lines that begin otherwise.
		first[name] = regexp.MustCompile(`\A(?:[^\n]*\n)*?` + name + `:` + space + value + space + `(?:\n|\z)`)
	}
	f.Fuzz(func(t *testing.T, status []byte) {
		if verifyThread(status, 1<<unix.CAP_NET_ADMIN) != nil {
			return
		}
		for name, line := range first {
			if name == "CapAmb" && !regexp.MustCompile(`(?m)^CapAmb:`).Match(status) {
				continue // older kernels do not have it
			}
			if !line.Match(status) {
				t.Errorf("%s is taken for what it has to be in %q", name, status)
			}
		}
	})
}
