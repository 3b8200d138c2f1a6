package daemon

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// unannounced is how long something can go unnoticed of which the kernel tells nobody.
const unannounced = 10 * time.Second

// passedBy says what is at devices' ingress, or in tables that the kernel tells nothing of, that packets would pass by unnoticed.
func (f *fastPath) passedBy() (string, error) {
	chains, err := f.daemon.plane.rules.IngressChains()
	if err != nil {
		return "", err
	}
	if f.bridged, err = f.betweenPorts(); err != nil {
		return "", err
	}
	if len(chains) > 0 {
		return "nftables has a chain at the ingress of devices, which it would pass by: " + chains[0], nil
	}
	return legacyTable()
}

// legacyTable names a table of iptables-legacy, of whose changes the kernel tells nobody. That of NAT does not matter:
// conntrack has an entry already.
func legacyTable() (string, error) {
	b, err := os.ReadFile("/proc/net/ip_tables_names")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	for table := range strings.FieldsSeq(string(b)) {
		if table != "nat" {
			return fmt.Sprintf("the firewall has a table of iptables-legacy (%s), and nobody is told when it changes", table), nil
		}
	}
	return "", nil
}

// secondLook looks, as long as packets are carried, whether what no news tell of has come since: tables of iptables-legacy and a
// firewall at bridges' ports.
func (f *fastPath) secondLook(now time.Time) {
	f.looking = true
	f.daemon.table.Schedule(&f.second, now.Add(unannounced), func(now time.Time) {
		if f.looking = false; !f.carriesAny() {
			return // the next one that is carried begins it again
		}
		why, err := legacyTable()
		for link := range f.arrivals {
			if err == nil && why == "" {
				err = f.ways.Filtered(link)
			}
		}
		if err == nil && why == "" && f.atPorts() {
			err = ebtables()
		}
		if err != nil {
			why = err.Error()
		}
		if why != "" {
			f.halt(now, why)
			return
		}
		f.secondLook(now)
	})
}

func (f *fastPath) carriesAny() bool {
	for _, l := range f.lanes {
		if f.carries(l) {
			return true
		}
	}
	return false
}
