package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/ppp"
	"pptp-alg/e2e/ppp/mppe"
)

// dialing are the flags that probe and client share.
type dialing struct {
	server         netip.AddrPort
	source         netip.Addr
	user, password string
	callID         int
	timeout        time.Duration
	verbose        bool
}

func dialFlags(f *flag.FlagSet) *dialing {
	d := &dialing{}
	f.StringVar(&d.user, "user", "", "log in with this `NAME`")
	f.StringVar(&d.password, "password", "", "and this `PASSWORD`")
	f.Func("source", "connect from this `ADDRESS` of the machine", func(s string) (err error) {
		d.source, err = netip.ParseAddr(s)
		return err
	})
	f.IntVar(&d.callID, "call-id", -1, "our `NUMBER`, 0 to 65535 (default: at random)")
	f.DurationVar(&d.timeout, "timeout", 10*time.Second, "how long every step may take")
	f.BoolVar(&d.verbose, "verbose", false, "log control messages to standard error")
	return d
}

// resolve finds the server's IPv4 address: PPTP has no other.
func (d *dialing) resolve(ctx context.Context, target string) error {
	host, port := target, uint16(peer.Port)
	if h, p, err := net.SplitHostPort(target); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return fmt.Errorf("find %s: wrong port", target)
		}
		host, port = h, uint16(n)
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", host)
	if err != nil {
		return fmt.Errorf("find the address of %s: %w", host, err)
	}
	d.server = netip.AddrPortFrom(addresses[0].Unmap(), port)
	return nil
}

func (d *dialing) log(to io.Writer) func(string, ...any) {
	if !d.verbose {
		return func(string, ...any) {}
	}
	return logTo(to)
}

func logTo(to io.Writer) func(string, ...any) {
	return func(format string, args ...any) { fmt.Fprintf(to, format+"\n", args...) }
}

// encryptionFlag reads what of MPPE to be willing to: "none", or strengths and
// modes and "required", with commas between.
func encryptionFlag(f *flag.FlagSet, e *ppp.Encryption) {
	f.Func("encryption", "`WHAT` of MPPE: none, or of 40, 56, 128, stateless, stateful, required, with commas (default 40,56,128,stateless,stateful)",
		func(s string) error {
			*e = ppp.Encryption{}
			if s == "none" {
				return nil
			}
			for _, word := range strings.Split(s, ",") {
				switch word {
				case "40", "56", "128":
					n, _ := strconv.Atoi(word)
					e.Strengths = append(e.Strengths, mppe.Strength(n))
				case "stateless":
					e.Stateless = true
				case "stateful":
					e.Stateful = true
				case "required":
					e.Required = true
				default:
					return fmt.Errorf("%q is none of them", word)
				}
			}
			if !e.Stateless && !e.Stateful {
				e.Stateless = true
			}
			if len(e.Strengths) == 0 {
				return errors.New("no strength given")
			}
			return nil
		})
}

// methodsFlag reads ways to log in.
func methodsFlag(f *flag.FlagSet, m *[]ppp.Method) {
	f.Func("auth", "`METHODS` to log in, the favourite first: mschapv2, chap, pap, or none (default mschapv2,chap,pap)", func(s string) error {
		*m = nil
		for _, word := range strings.Split(s, ",") {
			switch word {
			case "mschapv2":
				*m = append(*m, ppp.MSCHAPv2)
			case "chap":
				*m = append(*m, ppp.CHAPMD5)
			case "pap":
				*m = append(*m, ppp.PAP)
			case "none":
			default:
				return fmt.Errorf("%q is none of them", word)
			}
		}
		return nil
	})
}
