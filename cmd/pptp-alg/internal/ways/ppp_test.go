package ways

import "testing"

func TestGivesToPPP(t *testing.T) {
	for _, c := range []struct {
		release, version string
		want             bool
	}{
		{"6.18.44-fc-v595", "#1 SMP PREEMPT_DYNAMIC @0", true},
		{"6.12.117+deb12-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.12.117-1 (2026-10-01)", true},
		{"6.1.0-56-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (2026-10-01)", true},
		{"6.1.0-9-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.27-1 (2023-05-08)", false},
		{"6.1.0-9-amd64", "#1 SMP, built with gcc 12.2.0", false},
		{"6.6.0", "", true},
		{"5.15.150", "#0 SMP", true},
		{"5.15.90", "#0 SMP", false},
		{"5.10.176", "#0 SMP", false},
		{"5.4.290", "#0 SMP", false},
		{"6.4.16", "", false},
		{"7.0.1", "", true},
		{"strange", "", false},
	} {
		if got := givesToPPP(c.release, c.version); got != c.want {
			t.Errorf("%s %s: %v", c.release, c.version, got)
		}
	}
}
