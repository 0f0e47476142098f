"""The engine of a search: it proposes genomes, has them judged by workers, and loses no finished evaluation."""
