// Package config holds the daemon's settings: their defaults, and the TOML file
// that changes them.
//
// The file is decoded, checked and converted once, by [Load] or [Parse]; what
// travels is [Config], in the types the program works with. Every key of the file
// is optional. Unknown keys and impossible values are refused, all at once, each
// with its line and a reason.
//
// The file reference.toml lists every key with its default; a test keeps it true.
package config
