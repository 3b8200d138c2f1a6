// Package pcap reads captures of packets, as tcpdump and Wireshark write them,
// and writes such files.
//
// It reads pcap and pcapng in both byte orders, with timestamps of any
// resolution, and finds the IPv4 packet behind the link-layer headers that a
// router's captures have. It trusts nothing in a file: users send theirs, and
// the lengths in it may be anything.
//
// The module has a reader already, gopacket/pcapgo. It would add 98 KB to the
// program, this one adds 25, and it allocates what a length field asks for.
package pcap
