# Completion of pptp-alg for bash; made from its commands.
# shellcheck disable=SC2207
_pptp_alg() {
  local word=$2 flags=
  COMPREPLY=()
  if [ "$COMP_CWORD" = 1 ]; then
    COMPREPLY=($(compgen -W "run check status watch drop config rules replay version help" -- "$word"))
    return
  fi
  case "${COMP_WORDS[1]} $3" in
    "run --anchor") COMPREPLY=($(compgen -W "auto ftp off" -- "$word")); return ;;
    "run --capture") COMPREPLY=($(compgen -f -- "$word")); return ;;
    "run --config") COMPREPLY=($(compgen -f -- "$word")); return ;;
    "run --fast-path") COMPREPLY=($(compgen -W "on off" -- "$word")); return ;;
    "run --log-format") COMPREPLY=($(compgen -W "text json" -- "$word")); return ;;
    "run --log-level") COMPREPLY=($(compgen -W "debug info warn error" -- "$word")); return ;;
    "run --port") return ;;
    "run --queue") return ;;
    "run --socket") COMPREPLY=($(compgen -f -- "$word")); return ;;
    "run --state") COMPREPLY=($(compgen -f -- "$word")); return ;;
    "check --config") COMPREPLY=($(compgen -f -- "$word")); return ;;
    "check --port") return ;;
    "check --queue") return ;;
    "check --socket") COMPREPLY=($(compgen -f -- "$word")); return ;;
    "status --client") return ;;
    "status --server") return ;;
    "status --socket") COMPREPLY=($(compgen -f -- "$word")); return ;;
    "status --state") return ;;
    "watch --client") return ;;
    "watch --server") return ;;
    "watch --socket") COMPREPLY=($(compgen -f -- "$word")); return ;;
    "watch --state") return ;;
    "drop --socket") COMPREPLY=($(compgen -f -- "$word")); return ;;
    "config --anchor") COMPREPLY=($(compgen -W "auto ftp off" -- "$word")); return ;;
    "config --capture") COMPREPLY=($(compgen -f -- "$word")); return ;;
    "config --config") COMPREPLY=($(compgen -f -- "$word")); return ;;
    "config --fast-path") COMPREPLY=($(compgen -W "on off" -- "$word")); return ;;
    "config --log-format") COMPREPLY=($(compgen -W "text json" -- "$word")); return ;;
    "config --log-level") COMPREPLY=($(compgen -W "debug info warn error" -- "$word")); return ;;
    "config --port") return ;;
    "config --queue") return ;;
    "config --socket") COMPREPLY=($(compgen -f -- "$word")); return ;;
    "config --state") COMPREPLY=($(compgen -f -- "$word")); return ;;
    "rules --anchor") COMPREPLY=($(compgen -W "auto ftp off" -- "$word")); return ;;
    "rules --config") COMPREPLY=($(compgen -f -- "$word")); return ;;
    "rules --port") return ;;
    "rules --queue") return ;;
    "replay --config") COMPREPLY=($(compgen -f -- "$word")); return ;;
    "replay --port") return ;;
    "replay --public") return ;;
    "replay --seed") return ;;
    "replay --write") COMPREPLY=($(compgen -f -- "$word")); return ;;
  esac
  case "${COMP_WORDS[1]}" in
    run) flags="--anchor --capture --config --fast-path --log-format --log-level --port --queue --socket --state --help" ;;
    check) flags="--config --json --port --queue --socket --strict --help" ;;
    status) flags="--client --connections --ended --json --server --socket --state --watch --help" ;;
    watch) flags="--client --json --server --socket --state --help" ;;
    drop) flags="--connection --json --socket --help" ;;
    config) flags="--anchor --capture --config --fast-path --log-format --log-level --port --queue --socket --state --help" ;;
    rules) flags="--anchor --config --port --queue --remove --help" ;;
    replay) flags="--config --json --port --public --seed --write --help" ;;
    version) flags=" --help" ;;
  esac
  if [[ $word == -* ]]; then COMPREPLY=($(compgen -W "$flags" -- "$word")); else COMPREPLY=($(compgen -f -- "$word")); fi
}
complete -o filenames -F _pptp_alg pptp-alg
