package examine

// fastPath tries the programs of the fast path in a network namespace of its own. Calls need none of it: that it cannot
// be had is worth a warning only where it is wanted.
func fastPath(c Config) []Finding {
	const name = "fast path"
	if c.TryFastPath == nil {
		return nil
	}
	var cannot error
	if err := scratch(func() { cannot = c.TryFastPath() }); err != nil {
		return nil // which another finding has said
	}
	switch {
	case cannot == nil && c.FastPath:
		return []Finding{ok(name, "is on, and this kernel has what it takes")}
	case cannot == nil:
		return []Finding{ok(name, "is off; this kernel has what it takes (fast_path = \"on\")")}
	case c.FastPath:
		return []Finding{warning(name, both(`set fast_path = "off", or use a kernel from 5.10 on with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF`),
			"is on and cannot be had, so calls take the ordinary path: %v", cannot)}
	}
	return []Finding{ok(name, "is off; it cannot be had here: %v", cannot)}
}
