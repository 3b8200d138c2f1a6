package ways

import (
	"regexp"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// pppSince has, by their numbers, the series of stable kernels that were mended, and a release of each that surely was:
// before, a packet that a program gave to a PPP device kept the Ethernet header with which it had come
// (dev_is_mac_header_xmit did not know ARPHRD_PPP until September 2023, that is 6.6).
var pppSince = map[[2]int]int{{5, 10}: 200, {5, 15}: 140, {6, 1}: 60, {6, 5}: 10}

var numbers = regexp.MustCompile(`\b(\d+)\.(\d+)\.(\d+)`)

// givesToPPP reports whether a kernel gives packets to PPP devices as they have to be. Some distributions have the number of the
// stable release in the version only (Debian: 6.1.0-56-amd64 is "... Debian 6.1.176-1 ...").
func givesToPPP(release, version string) bool {
	var series [2]int
	for i, m := range numbers.FindAllStringSubmatch(release+" "+version, -1) {
		var n [3]int
		for k := range n {
			n[k], _ = strconv.Atoi(m[k+1])
		}
		of := [2]int{n[0], n[1]}
		if i == 0 {
			series = of
		}
		since, mended := pppSince[series]
		if series[0] > 6 || series[0] == 6 && series[1] >= 6 || mended && of == series && n[2] >= since {
			return true
		}
	}
	return false
}

// pppTakes is givesToPPP of the kernel that runs.
var pppTakes = sync.OnceValue(func() bool {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return false
	}
	return givesToPPP(unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Version[:]))
})
