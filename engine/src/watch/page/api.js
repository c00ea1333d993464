// Requests to HA-watch, and through it to the leader's agent. A refusal becomes a `Problem` with what to do about it.

import { askToken } from './ui/dialog.js';

const TOKEN = 'steadfast-token';
let asking = null;

/** Why something was not done (problem+json, RFC 9457), in words. */
export class Problem extends Error {
  constructor({ title, detail, remedy, status }) {
    super(detail || title || 'it was not done');
    this.title = title ?? 'refused';
    this.remedy = remedy ?? '';
    this.status = status ?? 0;
  }
}

/** The token lives as long as this tab. */
export function headers() {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { authorization: `Bearer ${token}` } : {};
}

export function askForToken() {
  asking ??= askToken().then((token) => {
    asking = null;
    if (token) sessionStorage.setItem(TOKEN, token);
  });
  return asking;
}

export const get = (path) => request('GET', path);
export const post = (path, body) => request('POST', path, body);
export const put = (path, body) => request('PUT', path, body);
export const remove = (path) => request('DELETE', path);

export async function request(method, path, body) {
  const bytes = body instanceof Blob || body instanceof ArrayBuffer;
  const type = bytes ? 'application/wasm' : 'application/json';
  const response = await fetch(path, {
    method,
    cache: 'no-store',
    headers: { ...headers(), accept: 'application/json', ...(body === undefined ? {} : { 'content-type': type }) },
    body: body === undefined ? undefined : bytes ? body : JSON.stringify(body),
  }).catch(() => {
    throw new Problem({
      title: 'no answer',
      detail: 'HA-watch did not answer, so whether the change was made is not known.',
      remedy: 'Look at the state before you ask again. Asking twice does no harm.',
    });
  });
  if (response.status === 401) {
    await askForToken();
    throw new Problem({ title: 'not signed in', detail: 'A token is needed for this.', remedy: 'Try again.', status: 401 });
  }
  const text = await response.text();
  const answer = parse(text);
  if (response.ok) return answer;
  throw new Problem({ detail: typeof answer === 'string' ? answer : '', title: response.statusText, status: response.status, ...answer });
}

function parse(text) {
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return text;
  }
}

let cluster = '';

export function useCluster(id) {
  cluster = id;
}

/** A path of the chosen cluster in HA-watch's API. */
export function ofCluster(path) {
  return `/v1/clusters/${encodeURIComponent(cluster)}/${path}`;
}

/** A path of the cluster's agents' API: changes go to the leader. */
export function ofAgent(path) {
  return ofCluster(`agent/v1/${path}`);
}

/** A path made of names that may contain anything: agent`vms/${name}/start`. */
export function agent(parts, ...names) {
  return ofAgent(String.raw({ raw: parts }, ...names.map(encodeURIComponent)));
}
