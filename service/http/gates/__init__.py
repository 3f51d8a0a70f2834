"""What a request passes before its body is read: keys, ids, the doorman."""
