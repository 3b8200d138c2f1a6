package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pptp-alg/e2e/peer"
)

// floodsVariable says how many calls TestFloodFigures measures of each kind.
const floodsVariable = "PPTP_ALG_FLOODS"

// elsewhere is a port at which the servers listen too, and of which the daemon knows nothing.
const elsewhere = peer.Port + 1

// How much longer another client's call takes to come up while somebody floods, and how much of that is not the
// daemon's: flooders, servers and router share the machine's processors. So the same flood goes by turns past the
// daemon, to another port of the same servers, and to where it hurts. The figures are written as the table in
// docs/reliability.md; nothing is judged.
func TestFloodFigures(t *testing.T) {
	rounds, err := strconv.Atoi(os.Getenv(floodsVariable))
	if err != nil || rounds < 1 {
		t.Skipf("measures, and takes minutes: set %s to a number of calls", floodsVariable)
	}
	const turns = 4
	f := newFloods(t)
	f.must(f.server.Listen(elsewhere))
	f.must(f.sink.Listen(elsewhere))
	median := func(all []time.Duration) time.Duration {
		slices.Sort(all)
		return all[len(all)/2]
	}
	rows := []string{"| flood | nobody floods | past the daemon | through the daemon | times as long | daemon's processor time |", "|---|---|---|---|---|---|"}
	for _, fl := range allFloods {
		if only := os.Getenv("PPTP_ALG_FLOOD"); only != "" && !strings.Contains(only, fl.name) {
			continue
		}
		var usual, past, through []time.Duration
		var busy, spent time.Duration
		during := func(port uint16) []time.Duration {
			f.port = port
			ctx, stop := context.WithCancel(f.ctx)
			over := make(chan string, 1)
			go func() { over <- fl.run(ctx, f) }()
			f.measure(3) // until it has got going
			used, begin := f.processor(), time.Now()
			all := f.measure(max(1, rounds/turns))
			if port == peer.Port {
				busy, spent = busy+f.processor()-used, spent+time.Since(begin)
			}
			stop()
			<-over
			return all
		}
		for range turns {
			usual = append(usual, f.measure(max(1, rounds/turns))...)
			past = append(past, during(elsewhere)...)
			through = append(through, during(peer.Port)...)
		}
		a, b, c := median(usual), median(past), median(through)
		rows = append(rows, fmt.Sprintf("| %s | %.1f ms | %.1f ms | %.1f ms | %.1f | %.0f %% |", fl.name, 1e3*a.Seconds(), 1e3*b.Seconds(), 1e3*c.Seconds(),
			c.Seconds()/b.Seconds(), 100*busy.Seconds()/spent.Seconds()))
	}
	t.Log("\n" + strings.Join(rows, "\n"))
}
