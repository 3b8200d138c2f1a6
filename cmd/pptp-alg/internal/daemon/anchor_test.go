package daemon

import (
	"errors"
	"testing"

	"pptp-alg/cmd/pptp-alg/internal/config"
)

// The own helper where it is harmless, the FTP helper where the kernel has no
// such thing, none where it has neither; and each step down has its reason.
func TestChoose(t *testing.T) {
	has, lacks := error(nil), errors.New("lacking")
	for _, c := range []struct {
		wish     config.Anchor
		others   bool
		own, ftp error
		helper   string
		notOwn   error
		notFTP   error
		asks     string // whom: the question may load modules
	}{
		{config.AnchorAuto, false, has, has, ownHelper, nil, nil, "own "},
		{config.AnchorAuto, false, lacks, has, ftpHelper, lacks, nil, "own ftp "},
		{config.AnchorAuto, false, lacks, lacks, "", lacks, lacks, "own ftp "},
		{config.AnchorAuto, true, has, has, ftpHelper, errOthers, nil, "ftp "},
		{config.AnchorAuto, true, has, lacks, "", errOthers, lacks, "ftp "},
		{config.AnchorFTP, false, has, has, ftpHelper, errNotWanted, nil, "ftp "},
		{config.AnchorFTP, true, has, lacks, "", errNotWanted, lacks, "ftp "},
		{config.AnchorOff, false, has, has, "", nil, nil, ""},
	} {
		asked := ""
		helper, notOwn, notFTP := choose(c.wish, c.others,
			func() error { asked += "own "; return c.own }, func() error { asked += "ftp "; return c.ftp })
		if helper != c.helper || notOwn != c.notOwn || notFTP != c.notFTP || asked != c.asks {
			t.Errorf("%s, others %t, own %v, ftp %v: %q, %v, %v after asking for %q; want %q, %v, %v, %q",
				c.wish, c.others, c.own, c.ftp, helper, notOwn, notFTP, asked, c.helper, c.notOwn, c.notFTP, c.asks)
		}
	}
}
