package rules

import "errors"

// Features says which of several ways this kernel offers.
type Features struct {
	// Queue: the nftables queue expression (Config.Native).
	Queue bool
	// Target: the xtables target NFQUEUE, from an nftables rule.
	Target bool
	// Limit: clients can be held to Config.Rate.
	Limit bool
}

// String is for the log.
func (f Features) String() string {
	switch {
	case f.Queue:
		return "nftables queue expression"
	case f.Target:
		return "xtables target NFQUEUE (the kernel has no nftables queue expression)"
	}
	return "no way to a queue"
}

// Features asks the kernel to judge a whole ruleset with each of the two ways, without installing anything: the batch
// lacks the message that would make it take effect. A table that is there is not disturbed. The error is an
// *UnsupportedError when neither way is open, or when the kernel lacks something that both need.
func (k *Kernel) Features() (Features, error) {
	try := func(native bool) (bool, error) {
		r, err := New(Config{Ports: []uint16{1723}, Guard: GuardAll, Native: native})
		if err != nil {
			return false, err
		}
		err = k.Check(r)
		if lacking := (*UnsupportedError)(nil); errors.As(err, &lacking) && lacking == needQueue {
			return false, nil
		}
		return err == nil, err
	}
	var f Features
	var err error
	if f.Queue, err = try(true); err != nil {
		return f, err
	}
	if f.Target, err = try(false); err != nil {
		return f, err
	}
	if !f.Queue && !f.Target {
		return f, &UnsupportedError{needQueue.Feature, needQueue.Fix}
	}
	r, err := New(Config{Ports: []uint16{1723}, Native: f.Queue, Rate: 1})
	if err != nil {
		return f, err
	}
	err = k.Check(r)
	if lacking := (*UnsupportedError)(nil); errors.As(err, &lacking) && lacking == needLimit {
		return f, nil
	}
	f.Limit = err == nil
	return f, err
}
