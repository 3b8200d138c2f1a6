package metrics

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"testing/iotest"
)

// What anybody sends to the address of the metrics: what is taken for a request is its
// first line, whatever pieces it comes in, and every answer has words.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "GET /metrics?x=1 HTTP/1.0\n\n", "GET http://host/metrics HTTP/1.1\r\n\r\n",
		"POST / HTTP/2\r\n\r\n", "GET  / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n", "\r\n\r\n", strings.Repeat("x", maxRequest+1),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		method, path, status := request(r)
		if read := len(b) - r.Len(); read > maxRequest {
			t.Errorf("%d bytes were read", read)
		}
		m, p, s := request(iotest.OneByteReader(bytes.NewReader(b)))
		if m != method || p != path || s != status {
			t.Errorf("%q %q %d, but byte by byte %q %q %d", method, path, status, m, p, s)
		}
		switch {
		case status == 0:
			if method+path != "" {
				t.Errorf("no request, but %q %q", method, path)
			}
		case reasons[status] == "":
			t.Errorf("no words for %d", status)
		case status == 200:
			line, _, _ := bytes.Cut(b, []byte("\n"))
			words := strings.Split(strings.TrimRight(string(line), "\r"), " ")
			if len(words) != 3 || words[0] != method || !strings.Contains(words[1], strings.TrimPrefix(path, "/")) || strings.ContainsAny(path, " \n?") {
				t.Errorf("%q is taken for %q %q", line, method, path)
			}
		}
	})
}

// The kernel's table of limits, of any contents.
func FuzzMaxFiles(f *testing.F) {
	f.Add([]byte("Limit Soft Limit Hard Limit Units\nMax open files            1024                 524288               files     \n"))
	f.Add([]byte("Max open files unlimited unlimited files"))
	f.Add([]byte("Max open files\n"))
	f.Fuzz(func(t *testing.T, limits []byte) {
		n, ok := maxFiles(limits)
		if ok && (n < 0 || n != math.Trunc(n) || n > math.MaxUint64) {
			t.Errorf("%v of %q", n, limits)
		}
	})
}
