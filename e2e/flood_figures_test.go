package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pptp-alg/e2e/peer"
)

// floodsVariable says how many calls TestFloodFigures measures of each kind.
const floodsVariable = "PPTP_ALG_FLOODS"

// floodVariable names the only flood that it measures.
const floodVariable = "PPTP_ALG_FLOOD"

// elsewhere is a port at which the servers listen too, and of which the daemon knows nothing.
const elsewhere = peer.Port + 1

// burn has a program of its own use such a part of a processor, until its end is called.
func (f *floods) burn(part float64) (end func()) {
	f.Helper()
	c := exec.Command("sh", "-c", "while :; do :; done")
	f.must(c.Start())
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		const slice = 10 * time.Millisecond
		for {
			for signal, long := range map[syscall.Signal]float64{syscall.SIGCONT: part, syscall.SIGSTOP: 1 - part} {
				_ = c.Process.Signal(signal)
				select {
				case <-over:
					return
				case <-time.After(time.Duration(long * float64(slice))):
				}
			}
		}
	}()
	return func() {
		close(over)
		<-ended
		_ = c.Process.Kill()
		_ = c.Wait()
	}
}

// How much longer another client's call takes to come up while somebody floods, and how much of that is not the
// daemon's: flooders, servers and router share the machine's processors. So the same flood goes by turns to where it
// hurts, and past the daemon to another port of the same servers; once as it is, and once while another program uses as
// much of a processor as the daemon did. The figures are the table in docs/reliability.md; nothing is judged.
func TestFloodFigures(t *testing.T) {
	rounds, err := strconv.Atoi(os.Getenv(floodsVariable))
	if err != nil || rounds < 1 {
		t.Skipf("measures, and takes minutes: set %s to a number of calls", floodsVariable)
	}
	const turns = 4
	rounds = max(1, rounds/turns)
	f := newFloods(t)
	f.must(f.server.Listen(elsewhere))
	f.must(f.sink.Listen(elsewhere))
	median := func(all []time.Duration) float64 {
		slices.Sort(all)
		return all[len(all)/2].Seconds() * 1000
	}
	rows := []string{"| flood | nobody floods | past the daemon | and a program as busy | through the daemon | daemon's processor time |", "|---|---|---|---|---|---|"}
	for _, fl := range allFloods {
		if only := os.Getenv(floodVariable); only != "" && only != fl.name {
			continue
		}
		during := func(port uint16) (all []time.Duration, part float64) {
			f.port = port
			ctx, stop := context.WithCancel(f.ctx)
			over := make(chan string, 1)
			go func() { over <- fl.run(ctx, f) }()
			f.measure(3) // until it has got going
			used, begin := f.processor(), time.Now()
			all = f.measure(rounds)
			part = float64(f.processor()-used) / float64(time.Since(begin))
			stop()
			<-over
			return all, part
		}
		var usual, past, busy, through []time.Duration
		var parts float64
		for range turns {
			usual = append(usual, f.measure(rounds)...)
			all, part := during(peer.Port)
			through, parts = append(through, all...), parts+part
			all, _ = during(elsewhere)
			past = append(past, all...)
			end := f.burn(min(part, 1))
			all, _ = during(elsewhere)
			busy = append(busy, all...)
			end()
		}
		rows = append(rows, fmt.Sprintf("| %s | %.1f ms | %.0f ms | %.0f ms | %.0f ms | %.0f %% |", fl.name,
			median(usual), median(past), median(busy), median(through), 100*parts/turns))
	}
	t.Log("\n" + strings.Join(rows, "\n"))
}
