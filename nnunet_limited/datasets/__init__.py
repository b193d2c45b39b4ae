"""Raw datasets: reading, deriving, making up."""
