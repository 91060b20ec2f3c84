"""From interactions to what a release needs: embeddings, tables of users and items, a ranker."""
