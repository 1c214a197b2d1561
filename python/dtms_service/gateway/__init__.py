"""The gateway process: it owns a broker, dials the service, sends prices up and carries commands out."""
