"""One thin module a command: parse, call, render. What a command needs it imports when it runs, for start-up time."""
