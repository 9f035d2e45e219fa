# Has the HAProxy master whose pid is in the file $1 read its configuration again, and waits until it would do so once more.
pid=$(cat "$1")
image() { cut -d ' ' -f 28 "/proc/$pid/stat"; } # where its stack begins: elsewhere each time it starts itself
hears() { # SIGUSR2 is number 12: bit 11 of the signals that it catches
    caught=$(sed -n 's/^SigCgt:[[:space:]]*//p' "/proc/$pid/status")
    case $caught in *[89a-f]??) return 0 ;; *) return 1 ;; esac
}
wait_until() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ "$tries" -lt 500 ] || exit 1
        sleep 0.02
    done
}
is_anew() { [ "$(image)" != "$before" ] && hears; }

wait_until hears
before=$(image)
kill -USR2 "$pid" || exit 1
wait_until is_anew
