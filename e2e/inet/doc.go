// Package inet is what lies inside a tunnel: a host so small that all it can do
// is answer pings, and a TUN device for those who want the kernel's.
package inet
