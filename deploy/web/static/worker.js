// Service worker: keeps the whole site, so that it opens without a network. files.js changes with any file.
/* global SITE_FILES, SITE_VERSION */
importScripts("files.js");

self.addEventListener("install", (event) => {
  const stored = caches.open(SITE_VERSION).then((cache) => cache.addAll(SITE_FILES));
  event.waitUntil(stored.then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  const drop = (names) => Promise.all(names.filter((name) => name !== SITE_VERSION).map((name) => caches.delete(name)));
  event.waitUntil(caches.keys().then(drop).then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  const stored = caches.match(event.request, { ignoreSearch: true });
  event.respondWith(stored.then((found) => found ?? fetch(event.request)));
});
