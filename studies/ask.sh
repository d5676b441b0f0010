#!/bin/sh
# Runs trials of the study in ask.yaml: sh studies/ask.sh URL STUDY
#
# Needs only a POSIX shell, curl, sed and awk. TUNE_TOKEN is your token at the server.
set -eu
study="$1/api/v1/studies/$2"

# post PATH BODY: print the answer, and its status in a line of its own.
post() {
    curl --silent --show-error --retry 8 --retry-connrefused --max-time 90 \
        --write-out '\n%{http_code}' --header "Authorization: Bearer ${TUNE_TOKEN:-}" \
        --header "Content-Type: application/json" --data "$2" "$study/$1"
}

# field NAME JSON: print the number that follows "NAME":
field() {
    printf '%s' "$2" | sed -n 's/.*"'"$1"'": *\(-\{0,1\}[0-9.eE+-]*\).*/\1/p'
}

# train X Y STEP: print the loss after a step.
train() {
    awk "BEGIN { print ($1 - 1) ^ 2 + ($2 + 1) ^ 2 + 1 / (1 + $3) }"
}

while true; do
    trial=$(post "ask?wait=30&lease=60&name=shell" '')
    case $trial in
    *200) ;;
    *204) continue ;;                   # no trial yet: ask again
    *409) echo "no more trials"; exit ;;
    *) echo "$trial" >&2; exit 1 ;;
    esac
    token=$(field token "$trial")
    x=$(field x "$trial")
    y=$(field y "$trial")
    state=complete
    for step in 0 1 2 3 4; do
        loss=$(train "$x" "$y" $step)
        answer=$(post "attempts/$token/report" "{\"step\": $step, \"metrics\": {\"loss\": $loss}}")
        case $answer in
        *'"stop":true'*) state=pruned; break ;;
        *409) continue 2 ;;             # the lease was lost: drop the trial
        esac
    done
    post "attempts/$token/tell" "{\"state\": \"$state\", \"values\": $loss}" >/dev/null
    echo "trial $(field trial "$trial"): $state, loss $loss"
done
