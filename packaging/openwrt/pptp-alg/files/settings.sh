# shellcheck shell=dash disable=SC2329,SC2317
# Translates /etc/config/pptp-alg into the program's own file, on standard output.
# Needs /lib/functions.sh.
#
# Every option goes over under its own name, so that the program is the one that
# judges it: numbers, true and false as they are, all else as text. A section of type
# pptp-alg holds the keys at the top, any other one the table of its type.

NL='
'

settings_value() {
	case "$1" in
	true | false) printf '%s' "$1" ;;
	'' | *[!0-9]* | 0?*) printf '"%s"' "$(printf '%s' "$1" | sed 's/\\/\\\\/g; s/"/\\"/g')" ;;
	*) printf '%s' "$1" ;;
	esac
}

# What config_load calls for each section, option and item of a list. A list goes out
# when something else begins.
settings_list_end() {
	[ -z "$LIST" ] || settings_line "$LIST = [$ITEMS]"
	LIST='' ITEMS=''
}

settings_line() {
	if [ -z "$TABLE" ]; then TOP="$TOP$1$NL"; else TABLES="$TABLES$1$NL"; fi
}

settings() {
	local TOP='' TABLES='' TABLE='' LIST='' ITEMS=''
	config_cb() {
		settings_list_end
		case "$1" in
		'') ;;
		pptp-alg) TABLE='' ;;
		*) TABLE=$1 TABLES="$TABLES${NL}[$1]$NL" ;;
		esac
	}
	option_cb() {
		settings_list_end
		case "$TABLE$1" in
		enabled) ;;
		*) settings_line "$1 = $(settings_value "$2")" ;;
		esac
	}
	list_cb() {
		[ "$1" = "$LIST" ] || settings_list_end
		LIST=$1
		ITEMS="$ITEMS${ITEMS:+, }$(settings_value "$2")"
	}
	config_load pptp-alg
	settings_list_end
	reset_cb
	printf '# Made from /etc/config/pptp-alg: changes are lost.\n%s%s' "$TOP" "$TABLES"
}
