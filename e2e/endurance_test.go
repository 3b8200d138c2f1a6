package e2e

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// TestEndurance goes on for this long, unless the variable says otherwise.
const (
	endurance         = 15 * time.Second
	enduranceVariable = "PPTP_ALG_ENDURANCE"
)

// Both ends of a connection may be gone without anybody having seen it, when conntrack forgot it for a moment. Their
// keepalives come every second here.
const enduranceConfig = quickConfig + `unheard = "8s"
`

// soak is a lab in which calls come and go while others stay.
type soak struct {
	*world
	servers []*peer.Node
	nodes   []*peer.Node
	legs    []leg // calls that stay up
	over    atomic.Bool
	wanted  atomic.Uint32 // the first client's next Call ID, when it is not 0
	mu      sync.Mutex
	told    map[uint16]bool // what the servers knew calls as
	dialled int
	made    int // calls that carried GRE
	failed  int // and those that did not, or whose connection failed meanwhile
}

// Calls come and go, connections are opened, closed and reset, and everything that can be done to the daemon and to the
// kernel is done meanwhile: at first the daemon is killed and stopped as well, later one daemon lives on. Calls that
// stay up stay up, and in the end nothing is left of the others. PPTP_ALG_ENDURANCE=15m makes it longer.
func TestEndurance(t *testing.T) {
	long := endurance
	if d, err := time.ParseDuration(os.Getenv(enduranceVariable)); err == nil {
		long = d
	}
	k := &soak{world: newWorld(t, lab.Plan{Clients: 4, Servers: 2, Firewall: strict()}), told: map[uint16]bool{}}
	k.start(enduranceConfig)
	ctx, cancel := context.WithTimeout(context.Background(), 2*long+16*patience)
	defer cancel()
	k.ctx = ctx
	k.populate()
	before := k.status(len(k.legs))
	var streams []*peer.Traffic
	for _, l := range k.legs {
		streams = append(streams, l.client.Traffic(10*time.Millisecond, 200), l.server.Traffic(10*time.Millisecond, 200))
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	stop := k.churning(seed)
	defer stop()

	rng := rand.New(rand.NewPCG(seed, 0))
	injected, asked := map[string]int{}, 0
	inject := func(until time.Time, from []fault) {
		for time.Now().Before(until) {
			time.Sleep(time.Duration(50+rng.IntN(700)) * time.Millisecond)
			f := from[rng.IntN(len(from))]
			if f.entries {
				k.eventually("the rules should be back before: "+f.name, k.rulesWhole)
			}
			k.eventually(f.name, func() error { return f.do(k.world) }) // the table may not be back yet from the last time
			injected[f.name]++
			if f.entries {
				k.speakAtOnce()
			}
			asked += k.allWell(f.name)
		}
	}
	began := time.Now()
	inject(began.Add(long/4), soakFaults)
	k.must(k.daemon.Stop(k.ctx))
	k.again(enduranceConfig)
	m := k.measure()
	inject(began.Add(long), soakFaults[ends:])
	stop()
	took := time.Since(began)

	k.settle(len(k.legs))
	k.survivors(before)
	sent, gone := 0, 0
	for _, s := range streams {
		n, lost, err := s.Stop(k.ctx)
		k.check(err)
		sent, gone = sent+n, gone+lost
	}
	gone += asked // whose answers the streams counted as their own
	for _, l := range k.legs {
		k.check(l.client.HangUp(k.ctx), l.server.WaitEnd(k.ctx), l.client.Session().Ping(k.ctx))
	}
	k.status(0)
	k.nothingLeft()
	k.comeBack(k.nodes[0])
	k.nothingLeft()
	total := 0
	for _, n := range injected {
		total += n
	}
	t.Logf("%v: %d faults %v; %d control connections, %d calls carried GRE and ended, %d calls or connections failed during faults; of %d calls that stayed up none was lost, and %d of %d packets",
		took.Round(time.Second), total, injected, k.dialled, k.made, k.failed, len(k.legs), gone, sent)
	if k.made < 10 {
		t.Errorf("only %d calls carried GRE", k.made)
	}
	m.grown(long)
	k.untranslated()
	k.clearKernels()
	_, k.before = split(k.structure()) // the firewall was made anew
	k.finish()
}

// populate starts servers and clients, and the calls that stay.
func (k *soak) populate() {
	k.Helper()
	for i := range k.Servers {
		// A client whose reset fell into a flush is not missed before the next keepalive.
		k.servers = append(k.servers, k.server(i, peer.Config{CallID: peer.Counting(uint16(20000 * (i + 1))), Keepalive: time.Second}))
	}
	for i := range k.Clients {
		// The first two calls of each client have the same Call IDs as the others'.
		// Later ones differ, since without a daemon they pass untranslated.
		var next atomic.Uint32
		k.nodes = append(k.nodes, k.client(i, peer.Config{CallID: func() uint16 {
			if id := k.wanted.Load(); id != 0 && i == 0 {
				return uint16(id)
			}
			if n := next.Add(1); n > 2 {
				return uint16(1000 + 4000*i + int(n)%4000)
			} else {
				return uint16(n)
			}
		}}))
		session := k.dial(k.nodes[i], k.servers[0])
		k.legs = append(k.legs, k.up(k.call(session), k.servers[0]), k.up(k.call(session), k.servers[0]))
	}
}

// churning has every client place calls until the function that it returns is called.
func (k *soak) churning(seed uint64) (stop func()) {
	var all sync.WaitGroup
	for i, n := range k.nodes {
		all.Go(func() { k.churn(n, rand.New(rand.NewPCG(seed, uint64(i+1)))) })
	}
	return func() {
		k.over.Store(true)
		all.Wait()
	}
}

// churn opens connections, places calls, and ends both in every way, until it is over.
func (k *soak) churn(client *peer.Node, rng *rand.Rand) {
	for !k.over.Load() {
		ctx, cancel := context.WithTimeout(k.ctx, 5*time.Second)
		server := k.servers[rng.IntN(len(k.servers))]
		s, err := client.Dial(ctx, control(server))
		if err == nil {
			for range 1 + rng.IntN(5) {
				if err = k.oneCall(ctx, s, server, rng); err != nil {
					break
				}
			}
			switch n := rng.IntN(4); {
			case n == 0 || err != nil:
				s.Abort()
			case n == 1:
				s.Close()
			default:
				err = s.Stop(ctx)
			}
		}
		cancel()
		k.mu.Lock()
		k.dialled++
		if err != nil {
			k.failed++
		}
		k.mu.Unlock()
	}
}

// oneCall has one call carry GRE, and ends it from either side or leaves it to the
// end of its connection.
func (k *soak) oneCall(ctx context.Context, s *peer.Session, server *peer.Node, rng *rand.Rand) error {
	c, err := s.OutgoingCall(ctx)
	if err != nil {
		return err
	}
	far, err := server.FindCall(ctx, c.Token())
	if err == nil {
		err = errors.Join(c.EchoWithin(ctx, time.Second, 2, 100), far.EchoWithin(ctx, time.Second, 1, 300))
	}
	if err != nil {
		return err
	}
	k.mu.Lock()
	k.made++
	k.told[far.PeerID()] = true
	k.mu.Unlock()
	switch rng.IntN(5) {
	case 0:
		return nil
	case 1, 2:
		return errors.Join(far.HangUp(ctx), c.WaitEnd(ctx))
	default:
		return errors.Join(c.HangUp(ctx), far.WaitEnd(ctx))
	}
}
