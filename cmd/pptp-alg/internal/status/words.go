package status

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

func address(a netip.Addr) string {
	if !a.IsValid() {
		return "-"
	}
	return a.String()
}

// word names the path of a call's packets.
func (f *FastPath) word() string {
	switch {
	case f == nil:
		return "-"
	case f.ToServer && f.ToClient:
		return "fast"
	case f.ToServer, f.ToClient:
		return "half fast"
	}
	return "ordinary"
}

// why says why a call that is up does not take the fast path, or not in both directions.
func (f *FastPath) why(state string) string {
	switch {
	case f == nil || f.Reason == "" || state != "established":
		return ""
	case f.ToServer:
		return "ordinary path to the client: " + f.Reason
	case f.ToClient:
		return "ordinary path to the server: " + f.Reason
	}
	return "ordinary path: " + f.Reason
}

func callID(id *uint16) string {
	if id == nil {
		return "-"
	}
	return strconv.Itoa(int(*id))
}

// age writes a duration in its two largest units.
func age(d time.Duration) string {
	s := int64(max(d, 0) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd%02dh", s/86400, s/3600%24)
}

func packets(n *uint64) string { return quantity(n, 1000, " kMGTPE") }
func bytesOf(n *uint64) string { return quantity(n, 1024, " KMGTPE") }

// quantity writes a number in full up to five digits, and with three significant
// ones and a unit beyond.
func quantity(n *uint64, base float64, units string) string {
	if n == nil {
		return "-"
	}
	if *n < 100_000 {
		return strconv.FormatUint(*n, 10)
	}
	v, u := float64(*n), 0
	for v >= base && u < len(units)-1 {
		v, u = v/base, u+1
	}
	// 999.7 would round to "1000", a digit too many.
	if v >= 999.5 && u < len(units)-1 {
		v, u = v/base, u+1
	}
	digits := 0
	switch {
	case v < 9.995:
		digits = 2
	case v < 99.95:
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + units[u:u+1]
}
