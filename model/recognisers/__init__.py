"""The networks, one folder for each kind; `registry` finds them, `interface` says what each gives."""
