package status

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// The README's picture of a terminal is what the program prints. `go test
// -update` draws it again.
func TestPicture(t *testing.T) {
	s := Status{
		Calls: []Call{
			{
				ID: 11, State: "established", Initiator: "client", Since: ago(3*24*time.Hour + 2*time.Hour), Established: ago(3 * 24 * time.Hour),
				Client: end("192.168.1.20", 5, "203.0.113.1", 5), Server: end("198.51.100.7", 1000, "198.51.100.7", 1000),
				PacketsFromClient: Known[uint64](1284011), BytesFromClient: Known[uint64](184_220_113),
				PacketsFromServer: Known[uint64](1520774), BytesFromServer: Known[uint64](1_640_220_113),
			},
			{
				ID: 12, State: "established", Initiator: "client", Since: ago(47 * time.Minute), Established: ago(47 * time.Minute),
				Client: end("192.168.1.21", 5, "203.0.113.1", 119), Server: end("198.51.100.7", 1001, "198.51.100.7", 1001),
				PacketsFromClient: Known[uint64](5120), BytesFromClient: Known[uint64](612_000),
				PacketsFromServer: Known[uint64](6011), BytesFromServer: Known[uint64](5_200_000),
			},
			{
				ID: 13, State: "established", Initiator: "client", Since: ago(41 * time.Second), Established: ago(40 * time.Second),
				Warning: "no GRE from the server for 40s, 14 packets from the client: a firewall between may block protocol 47",
				Client:  end("192.168.1.22", 5, "203.0.113.1", 77), Server: end("192.0.2.44", 0, "192.0.2.44", 131),
				PacketsFromClient: Known[uint64](14), BytesFromClient: Known[uint64](868),
				PacketsFromServer: Known[uint64](0), BytesFromServer: Known[uint64](0),
			},
		},
		Connections: make([]Connection, 3),
		Ended: []Call{{
			ID: 10, State: "ended", Initiator: "client", Since: ago(3 * time.Minute), Ended: ago(3 * time.Minute),
			Client: end("192.168.1.23", 9, "203.0.113.1", 9), Server: end("198.51.100.8", -1, "198.51.100.8", -1),
			Reason: "server refused the call: busy (result 4)",
		}},
	}
	v := View{Now: now, Colours: true, Width: 150}
	var text bytes.Buffer
	for _, part := range []struct {
		command string
		show    func(View, io.Writer, Status) error
	}{{"pptp-alg status", View.Calls}, {"pptp-alg status --ended", View.Ended}} {
		fmt.Fprintf(&text, "\x1b[1m# %s\x1b[0m\n", part.command)
		if err := part.show(v, &text, s); err != nil {
			t.Fatal(err)
		}
		text.WriteByte('\n')
	}
	const file = "../../../../docs/images/status.svg"
	got := svg(strings.TrimSpace(text.String()))
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(file); err != nil || got != string(want) {
		t.Errorf("%s is not what the program prints: go test ./cmd/pptp-alg/internal/status -update (%v)", file, err)
	}
}

// svg draws a terminal with a text whose colours are escape sequences.
func svg(text string) string {
	const width, height, margin = 8, 18, 16 // of a character, in pixels
	lines := strings.Split(text, "\n")
	columns := 0
	var body strings.Builder
	for i, line := range lines {
		fmt.Fprintf(&body, `<text x="%d" y="%d" xml:space="preserve">`, margin, margin+height*(i+1)-4)
		column := 0
		for j, part := range strings.Split(line, "\x1b[") {
			style := ""
			if j > 0 {
				code, rest, _ := strings.Cut(part, "m")
				style = map[string]string{"1": "b", "2": "d", "31": "r", "32": "g", "33": "y"}[code]
				part = rest
			}
			if part == "" {
				continue
			}
			column += len([]rune(part))
			fmt.Fprintf(&body, `<tspan class="%s">%s</tspan>`, style, html.EscapeString(part))
		}
		columns = max(columns, column)
		body.WriteString("</text>\n")
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="ui-monospace, monospace" font-size="13">
<style>text { fill: #d0d0d0; white-space: pre } .b { font-weight: bold; fill: #fff } .d { fill: #909090 } .r { fill: #ff6b6b } .g { fill: #7ec07e } .y { fill: #e5c07b }</style>
<rect width="100%%" height="100%%" rx="8" fill="#1d1f21"/>
%s</svg>
`, columns*width+2*margin, len(lines)*height+2*margin, body.String())
}
